// manifest.json of a plan folder (docs/tensorrt.md): what the decoder's plan was built from and
// for.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/tensor.h"

namespace higgs_rt {

struct PlanModel {
  std::int32_t num_layers = 0;
  std::int32_t hidden_size = 0;
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t text_vocab = 0;
  std::int32_t num_codebooks = 0;
  std::int32_t codebook_vocab = 0;
};

struct PlanLimits {
  std::int32_t max_batch = 0;         // KV slots
  std::int32_t max_seq_len = 0;       // positions of a slot
  std::int32_t max_prefill = 0;       // new positions of a slot in one prefill call
  std::int32_t max_prompt_table = 0;  // prompt-table rows of one prefill call
};

// A tensor as the manifest declares it. An axis is static, or a named dimension.
struct PlanBinding {
  struct Axis {
    std::int64_t extent = -1;  // -1: `dimension` names it
    std::string dimension;
    bool operator==(const Axis& other) const = default;
  };
  std::string name;
  bool is_input = false;
  DType dtype = DType::kF32;
  std::vector<Axis> shape;
};

struct PlanProfile {
  struct Range {
    std::int64_t least = 0;
    std::int64_t most = 0;
  };
  std::string name;
  std::map<std::string, Range> dims;
};

struct PlanWeight {
  std::string name;  // the original layout's
  DType dtype = DType::kF32;
  Shape shape;
};

struct PlanManifest {
  std::string path;             // of the manifest
  std::string backend;          // "tensorrt" or "tensorrt_rtx"
  std::string backend_version;  // of the package that built
  std::vector<std::string> targets;
  std::string plan_path;
  std::int64_t plan_bytes = 0;
  std::string checkpoint_hash;
  std::string layout;
  std::string weight_dtype;
  std::int64_t num_parameters = 0;
  DType precision = DType::kF32;
  bool weights_are_inputs = false;
  PlanModel model;
  PlanLimits limits;
  std::int64_t slot_bytes = 0;  // keys and values of all layers
  std::vector<PlanProfile> profiles;
  std::vector<PlanBinding> bindings;
  std::vector<PlanWeight> weight_inputs;
};

// Bytes of one slot of one cache tensor.
std::int64_t slot_stride(const PlanManifest& manifest);

// Reads <plan_dir>/manifest.json. Throws kNotFound without one, kInvalidArgument that names the
// field: missing, of another revision, at odds with another field, or a plan file of another size.
PlanManifest read_manifest(const std::string& plan_dir);

}  // namespace higgs_rt
