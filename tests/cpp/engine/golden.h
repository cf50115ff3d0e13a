// The checkpoints and sequences of tests/golden/lm (see make_lm_golden.py).
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "engine/factory.h"
#include "engine/sequence_runner.h"
#include "io/json_object.h"
#include "io/safetensors.h"

namespace higgs_rt::testing {

inline std::string golden_dir() { return std::string(HIGGS_RT_GOLDEN_DIR) + "/lm/"; }

struct Model {
  explicit Model(const std::string& layout, std::int32_t max_rows = 64,
                 std::unique_ptr<Device> on = make_cpu_device(),
                 std::optional<bool> asynchronous = std::nullopt, bool pack_weights = true,
                 const std::vector<NamedAdapter>& adapters = {},
                 const std::string& adapter_dir = "")
      : device(std::move(on)), pool(2) {
    EngineConfig config;
    config.model_dir = golden_dir() + layout;
    config.max_rows = max_rows;
    config.max_sequences = 4;
    config.max_positions = 64;
    config.block_tokens = 4;
    config.num_blocks = 48;
    config.asynchronous = asynchronous;
    config.pack_weights = pack_weights;
    config.adapters = adapters;
    config.adapter_dir = adapter_dir;
    loaded = load_engine(config, *device, pool);
  }
  Engine& engine() { return *loaded.engine; }
  const EngineSpec& spec() const { return loaded.engine->spec(); }

  std::unique_ptr<Device> device;
  ThreadPool pool;
  LoadedEngine loaded;
};

// The golden sequence, on blocks first, first + stride, … of the cache.
inline Sequence golden_sequence(const std::string& layout, std::int32_t first_block = 0,
                                std::int32_t stride = 1) {
  const JsonObject json = JsonObject::read(golden_dir() + layout + ".json");
  const Json* columns = json.value().find("columns");
  Sequence sequence;
  std::size_t next = 0;
  for (const std::int32_t id : json.integers("text")) {
    Position position;
    position.text = id;
    if (id < 0) {
      for (const Json& code : columns->items().at(next++).items()) {
        position.column.push_back(static_cast<std::int32_t>(code.integer_value()));
      }
    }
    sequence.positions.push_back(position);
  }
  for (std::int32_t b = 0; b < 12; ++b) sequence.blocks.push_back(first_block + b * stride);
  return sequence;
}

inline Logits golden_logits(const std::string& layout) {
  const SafetensorsFile file(golden_dir() + layout + ".logits.safetensors");
  const auto& entry = file.entries().at("logits");
  Logits logits((entry.end - entry.begin) / sizeof(float));
  std::memcpy(logits.data(), file.data() + entry.begin, entry.end - entry.begin);
  return logits;
}

inline float largest_difference(const Logits& a, const Logits& b) {
  if (a.size() != b.size()) return INFINITY;
  float largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const float difference = std::abs(a[i] - b[i]);
    if (!(difference <= largest)) largest = difference;  // NaN counts
  }
  return largest;
}

}  // namespace higgs_rt::testing
