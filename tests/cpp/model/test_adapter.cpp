#include <cstring>

#include "check.h"
#include "model/adapter.h"
#include "model/edited_checkpoint.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

const std::string kModule = "base_model.model.model.layers.0.self_attn.q_proj";
const std::string kName = "model.layers.0.self_attn.q_proj.weight";
const std::string kPlain = R"({"peft_type": "LORA", "r": 2, "lora_alpha": 3})";

StoredTensor floats(const Shape& shape, const std::vector<float>& values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return {"F32", shape, bytes};
}

// Rank 2 over a weight [3, 2].
struct Written {
  explicit Written(const std::string& config) {
    write_tensors(directory, {{kModule + ".lora_A.weight", floats({2, 2}, {1, 2, 3, 4})},
                              {kModule + ".lora_B.weight", floats({3, 2}, {1, 0, 0, 1, 1, 1})},
                              {"base_model.model.audio_lm_head.weight", floats({1, 2}, {7, 8})}});
    directory.write("adapter_config.json", config);
  }
  TemporaryDirectory directory;
};

}  // namespace

TEST("adapter: weight + scale B A, rounded to the weight's type") {
  const Written written(kPlain);
  Adapter adapter(written.directory.path());
  EXPECT(adapter.touches(kName) && adapter.touches("audio_lm_head.weight"));
  EXPECT(!adapter.touches("model.norm.weight"));
  std::vector<float> base = {1, 1, 1, 1, 1, 1}, merged(6);
  adapter.merge(kName, {base.data(), DType::kF32, {3, 2}}, merged.data());
  const std::vector<float> expected = {2.5f, 4, 5.5f, 7, 7, 10};  // 1 + 1.5 B A
  EXPECT(merged == expected);
  std::vector<BF16> half(6), half_merged(6);
  for (BF16& value : half) value = to_bf16(1.001f);
  adapter.merge(kName, {half.data(), DType::kBF16, {3, 2}}, half_merged.data());
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(to_float(half_merged[i]), to_float(to_bf16(expected[i] - 1 + to_float(half[i]))));
  }
}

TEST("adapter: a tensor trained in full replaces the model's; none may be left over") {
  const Written written(kPlain);
  Adapter adapter(written.directory.path());
  std::vector<float> base = {1, 1}, merged(2);
  adapter.merge("audio_lm_head.weight", {base.data(), DType::kF32, {1, 2}}, merged.data());
  EXPECT(merged == (std::vector<float>{7, 8}));
  EXPECT_THROWS(adapter.check_all_used(), "q_proj");
  EXPECT_THROWS(adapter.merge(kName, {base.data(), DType::kF32, {1, 2}}, merged.data()), "lora_B");
}

TEST("adapter: options that change the sum are refused by name") {
  for (const std::string option :
       {R"("use_dora": true)", R"("init_lora_weights": "olora")", R"("bias": "all")",
        R"("rank_pattern": {"q_proj": 3})", R"("fan_in_fan_out": true)", R"("peft_type": "IA3")"}) {
    const bool kind = option.find("peft_type") != std::string::npos;
    const std::string rest = R"("r": 2, "lora_alpha": 3)";
    const Written written(kind ? "{" + option + ", " + rest + "}"
                               : R"({"peft_type": "LORA", )" + option + ", " + rest + "}");
    const std::string name = option.substr(1, option.find('"', 1) - 1);
    EXPECT_THROWS(Adapter(written.directory.path()), name);
  }
}
