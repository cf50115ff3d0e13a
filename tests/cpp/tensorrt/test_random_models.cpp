// Shapes that the golden checkpoints do not have: logit rows that are no multiple of an aligned
// address, bf16 weights, other numbers of codebooks; ragged steps against the native engine.
#include <random>

#include "bench/random_checkpoint.h"
#include "check.h"
#include "engine/golden.h"
#include "tensorrt/plan_rig.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

constexpr std::int32_t kSlots = 5;
constexpr std::int32_t kPositions = 48;  // of a sequence

std::int32_t draw(std::mt19937& random, std::int32_t low, std::int32_t high) {
  return std::uniform_int_distribution<std::int32_t>(low, high)(random);
}

// Text, columns and prompt-table rows in runs; the last third is columns.
Sequence random_sequence(std::mt19937& random, const EngineSpec& spec, std::int32_t slot) {
  Sequence sequence;
  std::int32_t kind = 0;
  for (std::int32_t p = 0; p < kPositions; ++p) {
    if (p == 0 || draw(random, 0, 3) == 0) kind = draw(random, 0, 2);
    if (p >= kPositions * 2 / 3) kind = 1;
    Position position;
    if (kind == 1) {
      for (std::int32_t k = 0; k < spec.num_codebooks; ++k) {
        position.column.push_back(draw(random, 0, spec.codebook_vocab - 1));
      }
    } else {
      position.text = draw(random, 0, spec.text_vocab - 1);
      if (kind == 2) {
        for (std::int32_t i = 0; i < spec.hidden_size; ++i) {
          position.row.push_back(static_cast<float>(draw(random, -99, 99)) / 50.0f);
        }
      }
    }
    sequence.positions.push_back(std::move(position));
  }
  sequence.blocks = {slot};
  return sequence;
}

// Feeds the same random portions to both engines; logits of all rows must be the same bits.
void compare(TensorRtEngine& engine, Engine& native, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Sequence> ours;
  for (const std::int32_t slot : {3, 0, 4, 1}) {
    ours.push_back(random_sequence(random, engine.spec(), slot));
  }
  std::vector<Sequence> theirs = ours;
  for (int round = 0; round < 40; ++round) {
    std::vector<Portion> portions, same;
    for (std::size_t s = 0; s < ours.size(); ++s) {
      const std::int32_t left = kPositions - ours[s].done;
      if (left == 0 || draw(random, 0, 3) == 0) continue;
      const std::int32_t count = draw(random, 0, 1) == 0 ? 1 : draw(random, 1, 12);
      portions.push_back({&ours[s], std::min(left, count)});
      same.push_back({&theirs[s], std::min(left, count)});
    }
    if (portions.empty()) continue;
    EXPECT(step(engine, portions) == step(native, same));
  }
}

}  // namespace

TEST("tensorrt: random models of odd shapes give the native engine's logits") {
  for (const bool bf16 : {false, true}) {
    RandomLmShape shape;
    shape.num_codebooks = bf16 ? 5 : 7;
    shape.codebook_size = 31;  // 924 and 660 bytes of logits a row
    shape.kv_heads = bf16 ? 1 : 4;
    const TemporaryDirectory directory;
    write_random_lm(directory.path(), shape, bf16 ? DType::kBF16 : DType::kF32, 11);
    FolderOptions folder;
    folder.model_dir = directory.path();
    folder.max_batch = kSlots;
    folder.max_prefill = 7;
    folder.max_prompt_table = 3;
    folder.weights_are_inputs = bf16;
    PlanRig rig(folder, 64, {}, kSlots);
    EngineConfig config;
    config.model_dir = directory.path();
    config.max_rows = 64;
    config.max_sequences = kSlots;
    config.max_positions = 64;
    config.block_tokens = 64;
    config.num_blocks = kSlots;
    config.pack_weights = false;
    const auto device = make_cpu_device();
    ThreadPool pool(1);
    const LoadedEngine native = load_engine(config, *device, pool);
    for (std::uint32_t seed = 0; seed < 5; ++seed) compare(rig.engine(), *native.engine, seed);
    EXPECT(rig.engine().counts().prefill_calls > 100);
    EXPECT(rig.engine().counts().decode_calls > 20);
  }
}
