// Weights of a plan that takes them as inputs.
#include <cmath>
#include <cstring>

#include "check.h"
#include "engine/tensorrt/weight_inputs.h"
#include "io/checkpoint.h"
#include "tensorrt/plan_folder.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

TEST("tensorrt: fp16 is rounded to nearest, ties to even") {
  const std::vector<std::pair<float, int>> cases = {
      {0.0f, 0x0},         {-0.0f, 0x8000},        {1.0f, 0x3c00},
      {-3.14159f, 0xc248}, {0.1f, 0x2e66},         {65504.0f, 0x7bff},
      {65519.9f, 0x7bff},  {65520.0f, 0x7c00},     {1e30f, 0x7c00},
      {-1e30f, 0xfc00},    {1.00048828f, 0x3c00},  {1.00146484f, 0x3c02},
      {1e-8f, 0x0},        {5.96e-8f, 0x1},        {8.9e-8f, 0x1},
      {6.1e-5f, 0x3ff},    {6.1035156e-5f, 0x400}, {9.0e-8f, 0x2}};
  for (const auto& [value, bits] : cases) EXPECT_EQ(to_f16_bits(value), bits);
  EXPECT_EQ(to_f16_bits(INFINITY), 0x7c00);
  EXPECT_EQ(to_f16_bits(NAN) & 0x7fff, 0x7e00);
}

TEST("tensorrt: weight inputs are found by the original layout's names and converted") {
  PlanManifest manifest;
  manifest.path = "manifest.json";
  manifest.weights_are_inputs = true;
  manifest.weight_inputs = {{"audio_decoder_proj.audio_lm_head.weight", DType::kBF16, {256, 32}},
                            {"layers.1.audio_mlp.down_proj.weight", DType::kF32, {32, 40}},
                            {"embed_tokens.weight", DType::kF16, {300, 32}}};
  const auto device = make_cpu_device();
  const std::string model = golden_model("transformers");
  const auto tensors = load_weight_inputs(manifest, model, *device);
  REQUIRE(tensors.size() == 3);
  const Checkpoint checkpoint(model);
  const TensorView head = checkpoint.tensor("audio_lm_head.weight", {256, 32});
  EXPECT_EQ(tensors[0].as<BF16>()[77].bits, to_bf16(head.as<float>()[77]).bits);
  const TensorView down = checkpoint.tensor("model.layers.1.audio_mlp.down_proj.weight", {32, 40});
  EXPECT(std::memcmp(tensors[1].view().data, down.data, down.bytes()) == 0);
  const TensorView embed = checkpoint.tensor("model.embed_tokens.weight", {300, 32});
  std::uint16_t bits = 0;
  std::memcpy(&bits, static_cast<const char*>(tensors[2].view().data) + 2 * 1234, sizeof(bits));
  EXPECT_EQ(bits, to_f16_bits(embed.as<float>()[1234]));
  manifest.weight_inputs[1].shape = {40, 32};
  EXPECT_THROWS(
      load_weight_inputs(manifest, model, *device),
      "layers.1.audio_mlp.down_proj.weight] expected shape [32, 40] as in the checkpoint");
  manifest.weight_inputs[1].name = "layers.2.audio_mlp.down_proj.weight";
  EXPECT_THROWS(load_weight_inputs(manifest, model, *device), "expected a tensor of the model");
}
