// Feeds sequences to an engine position by position or in chunks, as the executor would.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace higgs_rt::testing {

// One position: a token id, a column, or an embedding that takes the place of a token's.
struct Position {
  std::int32_t text = -1;
  std::vector<std::int32_t> column;
  std::vector<float> row;
  std::int32_t feedback = -1;  // column of this sampler row, on the device
  bool is_audio() const { return !column.empty() || feedback >= 0; }
};

struct Sequence {
  std::vector<Position> positions;
  std::vector<std::int32_t> blocks;  // KV blocks, in order
  std::int32_t done = 0;             // positions already fed
  std::int32_t adapter = -1;         // index; -1: none
};

// `count` positions of one sequence in the next step.
struct Portion {
  Sequence* sequence = nullptr;
  std::int32_t count = 0;
};

inline StepBatch build_batch(const std::vector<Portion>& portions, const EngineSpec& spec) {
  StepBatch batch;
  batch.num_sequences = static_cast<std::int32_t>(portions.size());
  batch.max_blocks = spec.kv.blocks_for(spec.max_positions);
  const auto hidden = static_cast<std::size_t>(spec.hidden_size);
  const auto books = static_cast<std::size_t>(spec.num_codebooks);
  for (const bool audio : {false, true}) {
    auto& offsets = audio ? batch.audio_offset : batch.text_offset;
    for (std::size_t s = 0; s < portions.size(); ++s) {
      const Sequence& sequence = *portions[s].sequence;
      offsets.push_back(batch.num_rows());
      for (std::int32_t p = sequence.done; p < sequence.done + portions[s].count; ++p) {
        const Position& position = sequence.positions.at(static_cast<std::size_t>(p));
        if (position.is_audio() != audio) continue;
        std::int32_t id = position.text;
        if (position.feedback >= 0) {
          id = StepBatch::kFeedback + position.feedback;
        } else if (audio) {
          id = static_cast<std::int32_t>(batch.columns.size() / books);
          batch.columns.insert(batch.columns.end(), position.column.begin(), position.column.end());
        } else if (!position.row.empty()) {
          id = spec.text_vocab + static_cast<std::int32_t>(batch.table_rows.size() / hidden);
          batch.table_rows.insert(batch.table_rows.end(), position.row.begin(), position.row.end());
        }
        batch.ids.push_back(id);
        batch.sequence.push_back(static_cast<std::int32_t>(s));
        batch.position.push_back(p);
        batch.slot.push_back(spec.kv.slot(sequence.blocks.data(), p));
      }
    }
    offsets.push_back(batch.num_rows());
    if (!audio) batch.num_text_rows = batch.num_rows();
  }
  batch.decode = spec.separate_decode;
  for (const Portion& portion : portions) {
    const Position& last = portion.sequence->positions.at(
        static_cast<std::size_t>(portion.sequence->done + portion.count - 1));
    batch.decode = batch.decode && portion.count == 1 && last.feedback >= 0;
    batch.context_length.push_back(portion.sequence->done + portion.count);
    if (!spec.adapters.empty()) batch.adapter.push_back(portion.sequence->adapter);
    for (std::int32_t b = 0; b < batch.max_blocks; ++b) {
      const auto index = static_cast<std::size_t>(b);
      const auto& blocks = portion.sequence->blocks;
      batch.block_table.push_back(index < blocks.size() ? blocks[index] : -1);
    }
  }
  return batch;
}

using Logits = std::vector<float>;  // [positions fed, codebooks, codebook vocabulary]

// Feeds each chunk and returns, per chunk, the logits of its positions in order of position.
inline std::vector<Logits> step(Engine& engine, const std::vector<Portion>& portions,
                                const std::int32_t* last_columns = nullptr) {
  const EngineSpec& spec = engine.spec();
  StepBatch batch = build_batch(portions, spec);
  const auto width = static_cast<std::size_t>(spec.num_codebooks * spec.codebook_vocab);
  std::vector<std::pair<std::size_t, std::int32_t>> order;  // (chunk, position) of each logit row
  for (std::int32_t row = 0; row < batch.num_rows(); ++row) {
    const auto index = static_cast<std::size_t>(row);
    batch.logit_rows.push_back(row);
    batch.sampler_rows.push_back(batch.sequence[index]);
    order.emplace_back(batch.sequence[index], batch.position[index]);
  }
  StepOutput output;
  output.last_columns = last_columns;
  engine.forward(batch, output);
  std::vector<float> all(order.size() * width);
  engine.device().copy_to_host(all.data(), output.logits, all.size() * sizeof(float));
  engine.device().synchronize();
  std::vector<Logits> out;
  for (const Portion& portion : portions) {
    out.emplace_back(static_cast<std::size_t>(portion.count) * width);
  }
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto [which, position] = order[i];
    const std::int32_t at = position - portions[which].sequence->done;
    std::copy_n(
        all.begin() + static_cast<std::ptrdiff_t>(i * width), width,
        out[which].begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(at) * width));
  }
  for (const Portion& portion : portions) portion.sequence->done += portion.count;
  return out;
}

// Feeds three whole sequences of one length together, staggered: while one decodes, others are
// still in their prompts. Logits of all positions of each.
inline std::vector<Logits> feed_staggered(Engine& engine, std::vector<Sequence>& sequences) {
  const std::vector<std::vector<std::int32_t>> sizes = {{20, 1}, {3, 9, 1}, {30, 5, 5, 1}};
  const auto total = static_cast<std::int32_t>(sequences.at(0).positions.size());
  std::vector<Logits> got(sizes.size());
  for (std::size_t round = 0; true; ++round) {
    std::vector<Portion> portions;
    std::vector<std::size_t> who;
    for (std::size_t s = 0; s < sizes.size(); ++s) {
      const std::int32_t size = sizes[s][std::min(round, sizes[s].size() - 1)];
      const std::int32_t count = std::min(size, total - sequences.at(s).done);
      if (count == 0) continue;
      portions.push_back({&sequences[s], count});
      who.push_back(s);
    }
    if (portions.empty()) return got;
    const auto parts = step(engine, portions);
    for (std::size_t i = 0; i < who.size(); ++i) {
      got[who[i]].insert(got[who[i]].end(), parts[i].begin(), parts[i].end());
    }
  }
}

// Feeds the next `count` positions and wants no logits.
inline void pass(Engine& engine, Sequence& sequence, std::int32_t count) {
  StepOutput output;
  engine.forward(build_batch({{&sequence, count}}, engine.spec()), output);
  sequence.done += count;
}

// Feeds the whole sequence in chunks of these sizes (the last one repeats); logits of all
// positions.
inline Logits feed(Engine& engine, Sequence& sequence, const std::vector<std::int32_t>& sizes,
                   const std::int32_t* last_columns = nullptr) {
  Logits all;
  for (std::size_t i = 0; sequence.done < static_cast<std::int32_t>(sequence.positions.size());
       ++i) {
    const auto left = static_cast<std::int32_t>(sequence.positions.size()) - sequence.done;
    const std::int32_t count = std::min(left, sizes[std::min(i, sizes.size() - 1)]);
    const Logits part = step(engine, {{&sequence, count}}, last_columns).front();
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace higgs_rt::testing
