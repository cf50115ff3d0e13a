#include "engine/tensorrt/tensorrt_engine.h"

#include <algorithm>
#include <cstring>
#include <iostream>
#include <stdexcept>
#include <utility>

#include "core/check.h"
#include "core/trace.h"
#include "engine/native/check_batch.h"
#include "engine/tensorrt/bindings.h"

namespace higgs_rt {

namespace {

constexpr std::int64_t kAlignedWords = kPlanAlignment / 4;

std::int64_t length(const std::vector<std::int32_t>& list) {
  return static_cast<std::int64_t>(list.size());
}

// Room for at least `count` numbers; the address of the next field is aligned as the plan wants it.
StepStaging::Array take(StepStaging& staging, std::int64_t count) {
  return staging.take({(count + kAlignedWords - 1) / kAlignedWords * kAlignedWords});
}

// The device address of `values`, with room for at least `capacity` numbers and one.
template <class T>
void* stage(StepStaging& staging, const std::vector<T>& values, std::int64_t capacity = 0) {
  static_assert(sizeof(T) == 4);
  const auto size = static_cast<std::int64_t>(values.size());
  const StepStaging::Array array = take(staging, std::max({size, capacity, std::int64_t{1}}));
  if (!values.empty()) std::memcpy(array.host.data(), values.data(), values.size() * sizeof(T));
  return array.device.data;
}

}  // namespace

void TensorRtEngine::forward(const StepBatch& batch, StepOutput& output) {
  const TraceRange trace("forward");
  check_batch(batch, output, spec_);
  if (tail_.enqueue) check_tail(batch, output, tail_);
  calls_.split(batch, valid_);
  timer_->start();
  sources_.assign(batch.logit_rows.size(), 0);
  const auto note_logits = [&](const PlanCall& call, std::int64_t row) {
    for (const std::int32_t entry : call.wanted) {
      sources_[static_cast<std::size_t>(entry)] = static_cast<std::int32_t>(row++);
    }
  };
  const PlanCall* decode = calls_.decode();
  // The tail runs once a step: with the decode call when that gives all logits.
  const bool decode_has_tail =
      tail_.enqueue && decode != nullptr && decode->wanted.size() == batch.logit_rows.size();
  if (decode != nullptr) {
    run_decode(*decode, batch, output, decode_has_tail);
    note_logits(*decode, 0);
  }
  std::int64_t row = decode_logit_rows_;
  try {
    for (const PlanCall& call : calls_.prefills()) {
      run_prefill(call, output, call.wanted.empty() ? unused_logit_row_ : row);
      note_logits(call, row);
      row += whole_logit_rows(length(call.wanted));
    }
  } catch (const Error& error) {
    if (!decode_has_tail) throw;
    // The decode rows have been sampled, so the step must not be run again: no Error (engine.h).
    throw std::runtime_error(error.what());
  }
  note_positions(batch);
  output.logits = ordered_logits();
  if (tail_.enqueue && !decode_has_tail) run_tail(batch, output.logits);
  output.sampled = tail_.enqueue != nullptr;
  timer_->stop();
}

// What the next step must know of the slots: the positions that must not be overwritten.
void TensorRtEngine::note_positions(const StepBatch& batch) {
  for (std::int32_t i = 0; i < batch.num_rows(); ++i) {
    const auto row = static_cast<std::size_t>(i);
    const std::int32_t slot = batch.slot[row] / spec_.kv.block_tokens;
    const auto sequence = static_cast<std::size_t>(batch.sequence[row]);
    valid_[static_cast<std::size_t>(slot)] = batch.context_length[sequence];
  }
}

// Addresses are the same at every call; whoever binds or records takes them from here.
TensorRtEngine::DecodeInputs TensorRtEngine::stage_decode(
    const PlanCall& call, const std::vector<std::int32_t>& sampler_rows) {
  const std::int64_t slots = spec_.kv.num_blocks;
  StepStaging& staging = *decode_staging_;
  staging.begin();
  DecodeInputs inputs;
  inputs.bindings = {{{"audio_ids", stage(staging, call.audio_ids, slots)},
                      {"position", stage(staging, call.position, slots)},
                      {"write_index", stage(staging, call.write_index, slots)},
                      {"kv_length", stage(staging, call.kv_length, slots)},
                      {"logit_rows", stage(staging, call.logit_rows, slots)}}};
  const StepStaging::Array rows = take(staging, slots);
  std::fill(rows.host.begin(), rows.host.end(), -1);
  for (std::size_t i = 0; i < call.wanted.size() && !sampler_rows.empty(); ++i) {
    rows.host[i] = sampler_rows[static_cast<std::size_t>(call.wanted[i])];
  }
  inputs.sampler_rows = rows.device.as<std::int32_t>();
  // Last: without columns of the host, the usual case, they are not uploaded.
  if (!call.columns.empty()) inputs.columns = stage(staging, call.columns);
  staging.upload();
  return inputs;
}

void TensorRtEngine::bind_last_columns(Bucket& bucket, const std::int32_t* last_columns) {
  void* address = last_columns_or_unused(last_columns);
  if (bucket.last_columns == address) return;
  bucket.context->set_address("last_columns", address);
  bucket.last_columns = address;
}

void TensorRtEngine::run_decode(const PlanCall& call, const StepBatch& batch,
                                const StepOutput& output, bool with_tail) {
  Bucket& bucket = *std::find_if(buckets_.begin(), buckets_.end(), [&](const Bucket& candidate) {
    return candidate.slots == call.slots;
  });
  const DecodeInputs inputs = stage_decode(call, batch.sampler_rows);
  bind_last_columns(bucket, output.last_columns);
  ++counts_.decode_calls;
  if (with_tail && bucket.graph) {
    bucket.graph->launch();
    ++counts_.graph_launches;
    return;
  }
  bucket.context->enqueue();
  if (with_tail) tail_.enqueue(logit_arena_.as<float>(), inputs.sampler_rows, call.slots);
}

void TensorRtEngine::attach(StepTail tail) {
  check(tail.num_rows <= manifest_.limits.max_batch, "tensorrt", "expected at most ",
        manifest_.limits.max_batch, " sampler rows (max_batch of the plan), got ", tail.num_rows);
  device().synchronize();
  for (Bucket& bucket : buckets_) bucket.graph.reset();
  tail_ = std::move(tail);
  if (!tail_.enqueue) return;
  for (Bucket& bucket : buckets_) {
    bind_last_columns(bucket, tail_.last_columns);
    if (graphs_) record(bucket);
  }
}

void TensorRtEngine::record(Bucket& bucket) {
  const DecodeInputs inputs = stage_decode(calls_.padding(bucket.slots, valid_), {});
  const auto enqueue = [this, &context = *bucket.context, rows = inputs.sampler_rows,
                        slots = bucket.slots] {
    context.enqueue();
    tail_.enqueue(logit_arena_.as<float>(), rows, slots);
  };
  try {
    // Once without recording, of padding alone: whatever the tail prepares is prepared.
    enqueue();
    device().synchronize();
    bucket.graph = device().capture(enqueue);
    ++counts_.recordings;
  } catch (const Error& error) {
    graphs_ = false;
    std::cerr << "[tensorrt] decode runs without CUDA graphs: " << error.what() << '\n';
  }
}

void TensorRtEngine::run_prefill(const PlanCall& call, const StepOutput& output,
                                 std::int64_t logit_row) {
  const std::int64_t books = spec_.num_codebooks;
  const std::int64_t hidden = spec_.hidden_size;
  const std::int64_t columns = std::max<std::int64_t>(length(call.columns) / books, 1);
  const auto table =
      std::max<std::int64_t>(static_cast<std::int64_t>(call.table_rows.size()) / hidden, 1);
  const std::int64_t slots = call.slots;
  const Shape lists = {slots, call.positions};
  prefill_staging_->begin();
  const auto bind = [&](const char* name, const auto& values, const Shape& shape) {
    prefill_->set_shape(name, shape);
    prefill_->set_address(name, stage(*prefill_staging_, values, num_elements(shape)));
  };
  bind("text_ids", call.text_ids, {length(call.text_ids)});
  bind("audio_ids", call.audio_ids, {length(call.audio_ids)});
  bind("table_rows", call.table_rows, {table, hidden});
  bind("columns", call.columns, {columns, books});
  bind("row_index", call.row_index, lists);
  bind("position", call.position, lists);
  bind("text_place", call.text_place, {length(call.text_place)});
  bind("audio_place", call.audio_place, {length(call.audio_place)});
  bind("write_index", call.write_index, {slots});
  bind("kv_length", call.kv_length, {slots});
  bind("logit_rows", call.logit_rows, {length(call.logit_rows)});
  prefill_staging_->upload();
  prefill_->set_address("last_columns", last_columns_or_unused(output.last_columns));
  prefill_->set_address("logits", logit_arena_.view().slice(logit_row, 1).data);
  if (bound_slot_ != call.first_slot) bind_cache(*prefill_, call.first_slot);
  bound_slot_ = call.first_slot;
  prefill_->enqueue();
  ++counts_.prefill_calls;
}

void* TensorRtEngine::last_columns_or_unused(const std::int32_t* last_columns) const {
  if (last_columns == nullptr) return unused_.view().data;
  return const_cast<std::int32_t*>(last_columns);  // an input: TensorRT does not write it
}

// Logits of one call lie in the arena in order; those of several are brought together.
const float* TensorRtEngine::ordered_logits() {
  const TensorView& arena = logit_arena_.view();
  if (sources_.empty()) return arena.as<float>();
  bool in_order = true;
  for (std::size_t i = 1; i < sources_.size(); ++i) {
    in_order = in_order && sources_[i] == sources_[0] + static_cast<std::int32_t>(i);
  }
  if (in_order) return arena.slice(sources_[0], 1).as<float>();
  order_staging_->begin();
  const TensorView rows = order_staging_->add(sources_, {length(sources_)});
  order_staging_->upload();
  ops_->gather_rows(arena, rows, logits_.view().first(length(sources_)));
  return logits_.as<float>();
}

void TensorRtEngine::run_tail(const StepBatch& batch, const float* logits) {
  if (batch.sampler_rows.empty()) return;
  order_staging_->begin();
  const TensorView rows = order_staging_->add(batch.sampler_rows, {length(batch.sampler_rows)});
  order_staging_->upload();
  tail_.enqueue(logits, rows.as<std::int32_t>(), static_cast<std::int32_t>(rows.dim(0)));
}

}  // namespace higgs_rt
