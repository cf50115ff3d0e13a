// The language model's forward pass, defined once over Ops (specification 3).
#pragma once

#include <cstdint>
#include <vector>

#include "kv/kv_layout.h"
#include "model/adapter_set.h"
#include "model/config.h"
#include "model/weights.h"
#include "ops/ops.h"

namespace higgs_rt {

// One step in device memory; the fields are those of StepBatch. R rows, text first.
struct DecoderBatch {
  std::int64_t num_text_rows = 0;
  TensorView ids;                   // [R] i32
  TensorView sequence;              // [R] i32
  TensorView position;              // [R] i32
  TensorView slot;                  // [R] i32
  TensorView adapter;               // [R] i32; only with adapters
  TensorView columns;               // [n, K] i32
  TensorView last_columns;          // [sampler rows, K] i32; no rows when nothing refers to it
  TensorView table_rows;            // [m, H] fp32
  TensorView block_table;           // [sequences, max_blocks] i32
  TensorView logit_rows;            // [L] i32
  RowKind kind = RowKind::kPrompt;  // of all rows
  // No logits are wanted of rows before this one; only on devices that plan nothing for the rows of
  // attention() (Ops::plan_attention). Where no logits are wanted at all, it is not looked at.
  std::int64_t first_wanted = 0;
  // Whether a step of decode rows may take the device's form of a whole step (Ops::decode_step).
  bool one_kernel = true;
};

// Keys and values of every layer, each [num_slots, Hk, D].
struct KvCache {
  KvLayout layout;
  std::vector<TensorView> keys;
  std::vector<TensorView> values;
};

class Decoder {
 public:
  struct Limits {
    std::int32_t max_rows = 0;       // rows, and rows of logits, of one step
    std::int32_t max_positions = 0;  // positions of a sequence
    DType activations = DType::kF32;
    std::int32_t decode_rows = 0;  // most of a step of decode rows; 0: not known
  };
  // All working memory is allocated here. `ops` must outlive the decoder. With adapters every step
  // takes the operations one by one, whether a row of it has one or not, so that a row has the same
  // bits either way.
  Decoder(const ModelConfig& config, ModelWeights weights, const Limits& limits, Ops& ops,
          AdapterSet adapters = {});

  // Writes the step's keys and values and returns logits [L, K, V] fp32, valid until the next call.
  TensorView forward(const DecoderBatch& batch, const KvCache& cache);

 private:
  // Rows of the step by modality: [0, text) and [text, rows).
  struct Split {
    std::int64_t text = 0;
    std::int64_t rows = 0;
  };
  // What is done with the rows of one modality: [begin, begin + count).
  struct Feed {
    const PathWeights& path;
    const FfnAdapters* adapters;  // null: none
    std::int64_t width, begin, count;
  };
  Ops::AttentionInput attention_input(std::size_t layer, const DecoderBatch& batch,
                                      const Split& split) const;
  Ops::FfnInput ffn_input(const Feed& feed, const DecoderBatch& batch) const;
  Ops::LoraRows lora_rows(const DecoderBatch& batch, std::int64_t begin, std::int64_t count) const;
  // All layers and the head at once, where the device has a form for that. The logits that a step
  // of decode rows wants are those of its first rows (StepBatch::decode).
  bool decode(const DecoderBatch& batch, const KvCache& cache);
  void embed(const DecoderBatch& batch, const Split& split);
  void attention(std::size_t layer, const DecoderBatch& batch, const Split& split,
                 const KvCache& cache, std::int64_t first);
  // The rows of a modality from `first` on.
  Feed text_feed(std::size_t layer, const Split& split, std::int64_t first) const;
  Feed audio_feed(std::size_t layer, const Split& split, std::int64_t first) const;
  void feed_forward(const Feed& feed, const DecoderBatch& batch);

  ModelConfig config_;
  ModelWeights weights_;
  AdapterSet adapters_;
  Ops& ops_;
  std::int32_t decode_rows_;
  Tensor rope_;       // [max_positions, D/2, 2]
  Tensor hidden_;     // [max_rows, H] fp32, residual stream
  Tensor normed_;     // [max_rows, H] and below: activations, unless stated
  Tensor q_;          // [max_rows, Hq D]
  Tensor k_, v_;      // [max_rows, Hk D]
  Tensor attended_;   // [max_rows, Hq D]
  Tensor gate_, up_;  // [max_rows, F], F the larger of the two FFNs
  Tensor columns_;    // [max_rows, K] i32
  Tensor last_;       // [max_rows, H] fp32, the rows whose logits are wanted
  Tensor logits_;     // [max_rows, K V] fp32
  Tensor lora_;       // [kMaxLora, max_rows, rank] fp32; only with adapters
};

}  // namespace higgs_rt
