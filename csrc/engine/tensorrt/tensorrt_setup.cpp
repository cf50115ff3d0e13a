// What TensorRtEngine does once: memory, contexts, addresses, a first run of every decode bucket.
#include <algorithm>
#include <iostream>
#include <numeric>
#include <utility>

#include "core/check.h"
#include "engine/tensorrt/bindings.h"
#include "engine/tensorrt/tensorrt_engine.h"

namespace higgs_rt {

namespace {

// Powers of two below the number of slots, then that number.
std::vector<std::int32_t> bucket_sizes(std::int32_t slots) {
  std::vector<std::int32_t> sizes;
  for (std::int32_t size = 1; size < slots; size *= 2) sizes.push_back(size);
  sizes.push_back(slots);
  return sizes;
}

// Words of a field of `count` numbers.
std::int64_t field_words(std::int64_t count) {
  constexpr std::int64_t kAligned = kPlanAlignment / 4;
  return (std::max<std::int64_t>(count, 1) + kAligned - 1) / kAligned * kAligned;
}

}  // namespace

TensorRtEngine::TensorRtEngine(const EngineSpec& spec, PlanManifest manifest,
                               std::unique_ptr<PlanRuntime> runtime, std::unique_ptr<Plan> plan,
                               std::vector<Tensor> weights, std::unique_ptr<Ops> ops)
    : spec_(spec),
      manifest_(std::move(manifest)),
      runtime_(std::move(runtime)),
      plan_(std::move(plan)),
      ops_(std::move(ops)),
      timer_(ops_->device().make_timer()),
      weights_(std::move(weights)),
      valid_(static_cast<std::size_t>(spec.kv.num_blocks), 0),
      calls_(spec, {manifest_.limits.max_prefill, manifest_.limits.max_prompt_table,
                    manifest_.limits.max_batch, bucket_sizes(spec.kv.num_blocks)}) {
  allocate_cache();
  allocate_buffers();
  make_contexts();
}

template <class Make>
auto TensorRtEngine::make_or_explain(const std::string& what, const Make& make) {
  try {
    return make();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kResourceExhausted) throw;
    fail(ErrorCode::kResourceExhausted, "tensorrt", "expected room for ", what, " (", kv_bytes(),
         " bytes of KV cache in ", spec_.kv.num_blocks,
         " slots; fewer with num_blocks), got: ", error.what());
  }
}

Tensor TensorRtEngine::allocate(DType dtype, const Shape& shape, const std::string& what) {
  return make_or_explain(what, [&] { return Tensor(device(), dtype, shape); });
}

// Zeros, because a position that is masked out still counts when it is NaN.
void TensorRtEngine::allocate_cache() {
  constexpr std::size_t kChunk = std::size_t{16} << 20;
  const PlanModel& model = manifest_.model;
  const Shape shape = {spec_.kv.num_blocks, model.num_kv_heads, spec_.kv.block_tokens,
                       model.head_dim};
  std::vector<char> zeros;
  for (std::int32_t i = 0; i < model.num_layers; ++i) {
    const std::string layer = std::to_string(i);
    layers_.push_back({allocate(manifest_.precision, shape, "the keys of layer " + layer),
                       allocate(manifest_.precision, shape, "the values of layer " + layer),
                       {"past_k_" + layer, "past_v_" + layer},
                       {"present_k_" + layer, "present_v_" + layer}});
    for (const Tensor& cache : {layers_.back().keys, layers_.back().values}) {
      const std::size_t bytes = cache.view().bytes();
      zeros.resize(std::min(bytes, kChunk));
      for (std::size_t at = 0; at < bytes; at += zeros.size()) {
        device().copy_from_host(static_cast<char*>(cache.view().data) + at, zeros.data(),
                                std::min(zeros.size(), bytes - at));
      }
    }
  }
}

std::int64_t TensorRtEngine::whole_logit_rows(std::int64_t rows) const {
  return (rows + logit_row_step_ - 1) / logit_row_step_ * logit_row_step_;
}

std::unique_ptr<StepStaging> TensorRtEngine::make_staging(std::int64_t words, const char* what) {
  return make_or_explain(what, [&] { return std::make_unique<StepStaging>(device(), words); });
}

void TensorRtEngine::allocate_buffers() {
  const PlanLimits& limits = manifest_.limits;
  const std::int64_t slots = spec_.kv.num_blocks;
  const std::int64_t books = spec_.num_codebooks;
  const std::int64_t width = books * spec_.codebook_vocab;
  const std::int64_t hidden = spec_.hidden_size;
  decode_staging_ = make_staging(7 * field_words(slots) + field_words(limits.max_batch * books),
                                 "the inputs of decode");
  prefill_staging_ =
      make_staging(10 * field_words(limits.max_prefill) + field_words(limits.max_prefill * books) +
                       field_words(limits.max_prompt_table * hidden),
                   "the inputs of prefill");
  order_staging_ = make_staging(field_words(spec_.max_rows), "logit rows");
  std::vector<std::int32_t> numbers(static_cast<std::size_t>(slots));
  std::iota(numbers.begin(), numbers.end(), 0);
  identity_ = allocate(DType::kI32, {slots}, "row numbers");
  device().copy_from_host(identity_.view().data, numbers.data(), identity_.view().bytes());
  const std::vector<std::int32_t> zeros(
      static_cast<std::size_t>(std::max(hidden, limits.max_batch * books)), 0);
  unused_ = allocate(DType::kI32, {static_cast<std::int64_t>(zeros.size())}, "unused inputs");
  device().copy_from_host(unused_.view().data, zeros.data(), unused_.view().bytes());
  // A call's logits begin at an aligned address, i.e. at certain rows only.
  logit_row_step_ = kPlanAlignment / std::gcd(width * 4, std::int64_t{kPlanAlignment});
  decode_logit_rows_ = whole_logit_rows(slots);
  unused_logit_row_ = whole_logit_rows(decode_logit_rows_ + spec_.max_rows +
                                       calls_.max_wanted_calls() * (logit_row_step_ - 1));
  logit_arena_ = allocate(DType::kF32, {unused_logit_row_ + 1, width}, "logits");
  logits_ = allocate(DType::kF32, {spec_.max_rows, width}, "logits");
}

void TensorRtEngine::make_contexts() {
  const std::int64_t bytes = std::max({plan_->scratch_bytes(kPrefillProfile),
                                       plan_->scratch_bytes(kDecodeProfile), std::int64_t{1}});
  scratch_ = allocate(DType::kU8, {bytes}, "the plan's working memory");
  prefill_ = plan_->make_context(kPrefillProfile, scratch_.view().data, bytes, false);
  bind_weights(*prefill_);
  prefill_->set_shape("last_columns", {manifest_.limits.max_batch, spec_.num_codebooks});
  shape_cache(*prefill_, 1);
  for (const std::int32_t slots : bucket_sizes(spec_.kv.num_blocks)) {
    Bucket bucket;
    bucket.slots = slots;
    bucket.context = plan_->make_context(kDecodeProfile, scratch_.view().data, bytes, true);
    prepare(bucket);
    buckets_.push_back(std::move(bucket));
  }
  device().synchronize();
}

void TensorRtEngine::bind_weights(PlanContext& context) {
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    context.set_address(manifest_.weight_inputs[i].name.c_str(), weights_[i].view().data);
  }
}

// Slots from `first_slot`. Keys and values that a call adds are written in place.
void TensorRtEngine::bind_cache(PlanContext& context, std::int32_t first_slot) {
  for (const Layer& layer : layers_) {
    const std::array<const Tensor*, 2> caches = {&layer.keys, &layer.values};
    for (std::size_t i = 0; i < caches.size(); ++i) {
      void* address = caches[i]->view().slice(first_slot, 1).data;
      context.set_address(layer.past[i].c_str(), address);
      context.set_address(layer.present[i].c_str(), address);
    }
  }
}

void TensorRtEngine::shape_cache(PlanContext& context, std::int32_t slots) {
  const PlanModel& model = manifest_.model;
  const Shape shape = {slots, model.num_kv_heads, spec_.kv.block_tokens, model.head_dim};
  for (const Layer& layer : layers_) {
    for (const std::string& name : layer.past) context.set_shape(name.c_str(), shape);
  }
}

// Sets everything that stays, and runs once: kernels are chosen now, and a recording needs it. The
// run writes position 0 of slots that hold nothing yet.
void TensorRtEngine::prepare(Bucket& bucket) {
  PlanContext& context = *bucket.context;
  const std::int64_t slots = bucket.slots;
  const std::int64_t books = spec_.num_codebooks;
  const std::int64_t most = manifest_.limits.max_batch;
  const std::vector<std::pair<const char*, Shape>> shapes = {
      {"text_ids", {0}},          {"audio_ids", {slots}},
      {"columns", {most, books}}, {"last_columns", {most, books}},
      {"row_index", {slots, 1}},  {"position", {slots, 1}},
      {"text_place", {0}},        {"audio_place", {slots}},
      {"write_index", {slots}},   {"kv_length", {slots}},
      {"logit_rows", {slots}},    {"table_rows", {1, spec_.hidden_size}}};
  for (const auto& [name, shape] : shapes) context.set_shape(name, shape);
  shape_cache(context, bucket.slots);
  bind_weights(context);
  bind_cache(context, 0);
  for (const char* name : {"text_ids", "text_place", "table_rows", "last_columns"}) {
    context.set_address(name, unused_.view().data);
  }
  bucket.last_columns = unused_.view().data;
  for (const char* name : {"row_index", "audio_place"}) {
    context.set_address(name, identity_.view().data);
  }
  context.set_address("logits", logit_arena_.view().data);
  PlanCall call = calls_.padding(bucket.slots, valid_);
  call.columns.assign(static_cast<std::size_t>(most * books), 0);
  const DecodeInputs inputs = stage_decode(call, {});
  for (const auto& [name, address] : inputs.bindings) context.set_address(name, address);
  context.set_address("columns", inputs.columns);
  context.enqueue();
  if (graphs_ && !context.capturable()) {
    graphs_ = false;
    std::cerr << "[tensorrt] decode runs without CUDA graphs: the plan says that it cannot be "
                 "captured\n";
  }
}

}  // namespace higgs_rt
