// One step of one row: a candidate per live codebook, repetition-aware resampling (specification
// 7), then the delay pattern and the end of the stream. Shared by the CPU and the CUDA sampler.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "sampler/philox.h"
#include "sampler/row_state.h"
#include "sampler/sample_row.h"
#include "sampler/stream_rule.h"

namespace higgs_rt {

// How often `id` stands in the last ras_window columns of the codebook. The original counts BOS
// and EOS too, transformers does not (6.3).
HIGGS_HOST_DEVICE inline std::int32_t repetitions(const RowState& state, std::int32_t codebook,
                                                  std::int32_t codebook_vocab, std::int32_t id) {
  const bool special = id >= bos_id(codebook_vocab);
  if (special && state.params.rule == StreamRule::kTransformers) return 0;
  const std::int32_t window = state.params.ras_window;
  const std::int32_t filled = state.pushed < window ? state.pushed : window;
  std::int32_t count = 0;
  for (std::int32_t slot = 0; slot < filled; ++slot) {
    count += state.ring[codebook][slot] == id ? 1 : 0;
  }
  return count;
}

// The sampled id of a live codebook for the next column, or kNoId where its logits are unusable.
// sample(filter, random) draws from the codebook's logits as sample_row() does.
template <class Sample>
HIGGS_HOST_DEVICE inline std::int32_t sample_codebook(const RowState& state, std::int32_t codebook,
                                                      std::int32_t codebook_vocab, Sample sample) {
  const SamplingParams& params = state.params;
  const auto step = static_cast<std::uint32_t>(state.stream.column + 1);
  const auto stream = static_cast<std::uint32_t>(codebook);
  const std::uint32_t random = uniform_24_bits(params.seed, step, stream, Draw::kCandidate);
  const std::int32_t id = sample(RowFilter{params.temperature, params.top_k, params.top_p}, random);
  if (id == kNoId) return kNoId;
  if (repetitions(state, codebook, codebook_vocab, id) < params.ras_max_repeat) return id;
  // One draw from the plain softmax, not checked again.
  return sample(RowFilter{}, uniform_24_bits(params.seed, step, stream, Draw::kResample));
}

// The same for the general form of sample_row().
template <class Lanes>
HIGGS_HOST_DEVICE inline std::int32_t sample_codebook(Lanes lanes, const RowState& state,
                                                      std::int32_t codebook, const float* logits,
                                                      std::int32_t codebook_vocab,
                                                      RowScratch scratch) {
  return sample_codebook(
      state, codebook, codebook_vocab, [&](const RowFilter& filter, std::uint32_t random) {
        return sample_row(lanes, logits, codebook_vocab, filter, random, scratch);
      });
}

// Adds a whole column to the RAS window.
HIGGS_HOST_DEVICE inline void remember_column(RowState& state, std::int32_t num_codebooks,
                                              const std::int32_t* ids) {
  if (state.params.ras_window == 0) return;
  const std::int32_t slot = state.pushed % state.params.ras_window;
  for (std::int32_t k = 0; k < num_codebooks; ++k) {
    state.ring[k][slot] = static_cast<std::int16_t>(ids[k]);
  }
  ++state.pushed;
}

// Turns the sampled ids of the live codebooks into the next column, in place. A kNoId among them
// fails the row: it is finished and its column is all EOS.
HIGGS_HOST_DEVICE inline void finish_step(RowState& state, std::int32_t num_codebooks,
                                          std::int32_t codebook_vocab, std::int32_t* ids) {
  const LiveRange live = live_range(state.stream, state.params.rule, num_codebooks);
  for (std::int32_t k = live.first; k < live.last; ++k) {
    state.failed = state.failed || ids[k] == kNoId;
  }
  if (state.failed) {
    for (std::int32_t k = 0; k < num_codebooks; ++k) ids[k] = eos_id(codebook_vocab);
    state.finished = true;
    return;
  }
  state.finished =
      close_column(state.stream, state.params.rule, num_codebooks, codebook_vocab, ids);
  remember_column(state, num_codebooks, ids);
}

}  // namespace higgs_rt
