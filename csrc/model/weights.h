// The language model's tensors, found by a name table in either layout (specification 2.1).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/tensor.h"
#include "io/checkpoint.h"
#include "model/adapter.h"
#include "model/config.h"

namespace higgs_rt {

// SwiGLU: gate and up [F, H], down [H, F].
struct FfnWeights {
  TensorView gate, up, down;
};

// Norms and FFN of one modality in one layer; norms [H].
struct PathWeights {
  TensorView input_norm, post_attention_norm;
  FfnWeights ffn;
};

struct LayerWeights {
  TensorView q, k, v, o;  // [Hq D, H], [Hk D, H], [Hk D, H], [H, Hq D]
  PathWeights text, audio;
};

// Every tensor is fp32 or bf16. On the CPU the views point into the mapped files, but for tensors
// that an adapter changes: those are copies. On CUDA each
// tensor is a copy, as stored, except that the linear weights (q, k, v, o, the FFNs, the audio
// head) all have `linear_dtype`; q, k, v of a layer lie one after another as one [Hq D + 2 Hk D, H]
// matrix, and so do gate, up as [2 F, H].
struct ModelWeights {
  TensorView embed_tokens;   // [text_vocab, H]
  TensorView embed_columns;  // [num_codebooks * codebook_vocab, H]
  std::vector<LayerWeights> layers;
  TensorView norm;        // [H]
  TensorView audio_head;  // [num_codebooks * codebook_vocab, H]
  // The text head is checked when the checkpoint has one; pure speech does not use it.
  std::int64_t num_parameters = 0;  // text head included
  std::string dtype;                // as stored: "f32", "bf16" or "mixed"
  // bf16 when every stored linear weight is, otherwise fp32, to which CUDA widens the bf16 ones.
  DType linear_dtype = DType::kF32;

  std::shared_ptr<const Checkpoint> checkpoint;  // keeps the mapping
  std::vector<Tensor> owned;  // joined halves, packed copies, an adapter's; on CUDA everything
};

// Throws kNotFound with the names of missing tensors, kInvalidArgument that names a tensor with
// another shape or element type, or one that the model does not have. `adapter`, if any, is merged.
ModelWeights load_weights(const ModelConfig& config, std::shared_ptr<const Checkpoint> checkpoint,
                          Device& device, Adapter* adapter = nullptr);

}  // namespace higgs_rt
