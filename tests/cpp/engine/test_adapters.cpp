// Several adapters in one batch against each alone, and against engines with one of them merged.
#include <array>
#include <cmath>

#include "check.h"
#include "engine/golden.h"
#include "few.h"
#include "model/random_adapter.h"
#include "require_cuda.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

using MakeDevice = std::unique_ptr<Device> (*)();

// Of ranks 4 and 12, which become one of 16.
struct Adapters {
  explicit Adapters(const std::string& layout)
      : first(golden_dir() + layout, 4, 1), second(golden_dir() + layout, 12, 2) {}
  std::vector<NamedAdapter> named() const {
    return {{"first", first.path()}, {"second", second.path()}};
  }
  RandomAdapter first, second;
};

Logits alone(Model& model, const std::string& layout, std::int32_t adapter) {
  Sequence sequence = golden_sequence(layout);
  sequence.adapter = adapter;
  return feed(model.engine(), sequence, {64});
}

// The golden sequence with adapters -1, 0 and 1, in batches of all three, prompts and columns
// mixed.
std::vector<Logits> together(Model& model, const std::string& layout) {
  std::vector<Sequence> sequences;
  for (std::int32_t s = 0; s < 3; ++s) {
    sequences.push_back(golden_sequence(layout, s, 3));
    sequences.back().adapter = s - 1;
  }
  return feed_staggered(model.engine(), sequences);
}

// `tolerance`: of logits of order 1, against weights into which the adapter was merged.
void expect_as_merged(MakeDevice device, const std::string& layout, float tolerance,
                      bool same_bits) {
  const Adapters adapters(layout);
  Model model(layout, 128, device(), std::nullopt, true, adapters.named());
  EXPECT(model.spec().adapters == (std::vector<std::string>{"first", "second"}));
  const std::vector<Logits> got = together(model, layout);
  const std::array<std::string, 3> merged = {"", adapters.first.path(), adapters.second.path()};
  for (std::int32_t s = 0; s < 3; ++s) {
    const Logits& logits = got[static_cast<std::size_t>(s)];
    if (same_bits) EXPECT(logits == alone(model, layout, s - 1));
    Model single(layout, 128, device(), std::nullopt, true, {},
                 merged[static_cast<std::size_t>(s)]);
    const Logits expected = alone(single, layout, -1);
    const float difference = largest_difference(logits, expected);
    std::cout << "  " << layout << ", adapter " << s - 1 << ": largest difference " << difference
              << '\n';
    EXPECT(difference <= (s == 0 && same_bits ? 0 : tolerance));
    if (s != 0) EXPECT(largest_difference(logits, got[0]) > 0.5f);  // it does show
  }
  EXPECT(largest_difference(got[1], got[2]) > 0.5f);
}

}  // namespace

TEST(
    "engine: adapters in one batch equal each alone, bit for bit, and merged ones within "
    "rounding") {
  expect_as_merged(make_cpu_device, "transformers", 1e-4f, true);
  expect_as_merged(make_cpu_device, "original", 0.15f, true);  // merged weights are bf16
}

TEST("engine: cuda adapters in one batch equal merged ones within rounding") {
  require_cuda();
  if (!few_only()) expect_as_merged(require_cuda, "transformers", 1e-3f, false);
  expect_as_merged(require_cuda, "original", 0.3f, false);
}

TEST("engine: an adapter in one modality's FFN leaves rows before it alone") {
  const std::string layout = "transformers";
  StoredTensors audio_only;
  const RandomAdapter full(golden_dir() + layout, 8, 3);
  for (const auto& [name, tensor] : read_tensors(full.path())) {
    if (name.find("audio_mlp") != std::string::npos) audio_only[name] = tensor;
  }
  const TemporaryDirectory directory;
  write_tensors(directory, audio_only);
  directory.write("adapter_config.json", R"({"peft_type": "LORA", "lora_alpha": 8, "r": 8})");
  Model model(layout, 64, make_cpu_device(), std::nullopt, true, {{"audio", directory.path()}});
  Sequence sequence = golden_sequence(layout);
  std::size_t text = 0;  // positions before the first column
  while (!sequence.positions[text].is_audio()) ++text;
  const Logits with = alone(model, layout, 0), without = alone(model, layout, -1);
  const auto width = static_cast<std::size_t>(model.spec().num_codebooks) *
                     static_cast<std::size_t>(model.spec().codebook_vocab);
  EXPECT(std::equal(with.begin(), with.begin() + static_cast<std::ptrdiff_t>(text * width),
                    without.begin()));
  EXPECT(largest_difference(with, without) > 0.1f);
}

TEST("engine: adapters that cannot be kept apart, and indices that do not exist, are refused") {
  const std::string layout = "transformers", model_dir = golden_dir() + layout;
  const auto device = make_cpu_device();
  ThreadPool pool(1);
  EngineConfig config;
  config.model_dir = model_dir;
  const auto refused = [&](const std::string& tensor, const Shape& shape, const std::string& part) {
    const std::vector<float> zeros(static_cast<std::size_t>(num_elements(shape)));
    const RandomAdapter adapter(model_dir, 4, 1, {{tensor, stored_floats(shape, zeros)}});
    config.adapters = {{"x", adapter.path()}};
    EXPECT_THROWS(load_engine(config, *device, pool), part);
  };
  refused("base_model.model.audio_lm_head.weight", {2, 2}, "trained in full (merge this adapter");
  refused("base_model.model.model.layers.9.mlp.up_proj.lora_A.weight", {4, 4}, "layers.9.mlp");
  refused("base_model.model.model.layers.0.mlp.up_proj.other.weight", {4, 4}, "trained in full");
  const RandomAdapter adapter(model_dir, 4, 1);
  config.adapters = {{"x", adapter.path()}};
  config.backend = "tensorrt";
  EXPECT_THROWS(load_engine(config, *device, pool), "[adapters] expected none with backend tensor");
  Model other("original", 64, make_cpu_device());
  EXPECT_THROWS(Model("original", 64, make_cpu_device(), std::nullopt, true, config.adapters),
                "lora_");  // of a model of another size
  Model model(layout, 64, make_cpu_device(), std::nullopt, true, config.adapters);
  Sequence sequence = golden_sequence(layout);
  sequence.adapter = 1;
  EXPECT_THROWS(feed(model.engine(), sequence, {64}), "adapter[0] in [0, 1), got 1");
}
