// CUDA against CPU: equal columns, bit for bit. Needs a build with CUDA and a GPU.
#include <limits>

#include "check.h"
#include "few.h"
#include "sampler/plain_models.h"
#include "sampler/sampler.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

std::unique_ptr<Device> gpu_or_skip() {
  try {
    return make_cuda_device(0);
  } catch (const Error& error) {
    SKIP(error.what());
  }
}

SamplingParams random_params(std::mt19937_64& random, std::int32_t vocab) {
  SamplingParams params;
  params.seed = random();
  const float temperatures[] = {0.0f, 0.3f, 0.7f, 1.0f, 2.0f};
  const float top_ps[] = {1.0f, 0.95f, 0.6f, 0.05f};
  params.temperature = temperatures[random() % 5];
  params.top_p = top_ps[random() % 4];
  params.top_k = random() % 2 == 0 ? 0 : static_cast<std::int32_t>(random() % (vocab + 1));
  params.ras_window = static_cast<std::int32_t>(random() % (kMaxRasWindow + 1));
  params.ras_max_repeat = static_cast<std::int32_t>(1 + random() % 3);
  params.rule = static_cast<StreamRule>(random() % 2);
  return params;
}

// Mostly ordinary logits, some with ties, infinities and (rarely) NaN; EOS is unlikely at first.
std::vector<float> random_logits(std::mt19937_64& random, std::size_t rows, std::int32_t vocab) {
  std::normal_distribution<float> normal(0, 3);
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> logits;
  for (std::size_t row = 0; row < rows; ++row) {
    const std::uint64_t kind = random() % 8;
    for (std::int32_t id = 0; id < vocab; ++id) {
      float value = normal(random);
      if (kind == 0) value = std::round(value);
      if (kind == 1 && random() % 4 == 0) value = -inf;
      if (kind == 2 && random() % 64 == 0) value = inf;
      if (id == vocab - 1) value -= 4;
      logits.push_back(value);
    }
    if (random() % 3000 == 0) logits.back() = std::numeric_limits<float>::quiet_NaN();
  }
  return logits;
}

// `steps` steps of 64 rows; a row that ended is opened again for another request.
void compare(Device& gpu, std::int32_t codebooks, std::int32_t vocab, int steps) {
  constexpr std::int32_t kRows = 64;
  std::mt19937_64 random(static_cast<std::uint64_t>(vocab));
  const SamplerSpec spec = {kRows, codebooks, vocab};
  const auto cpu_sampler = make_cpu_sampler(spec);
  const auto gpu_sampler = make_sampler(spec, gpu);
  const auto open = [&](std::int32_t row) {
    const SamplingParams params = random_params(random, vocab);
    std::vector<std::int32_t> history(random() % 5 * static_cast<std::size_t>(codebooks));
    for (std::int32_t& id : history) id = static_cast<std::int32_t>(random() % 8);
    cpu_sampler->open_row(row, params, history);
    gpu_sampler->open_row(row, params, history);
  };
  std::vector<std::int32_t> rows(kRows);
  std::iota(rows.begin(), rows.end(), 0);
  for (const std::int32_t row : rows) open(row);
  const std::size_t ids = std::size_t{kRows} * static_cast<std::size_t>(codebooks);
  const auto device_logits = gpu.allocate(ids * static_cast<std::size_t>(vocab) * sizeof(float));
  std::vector<std::int32_t> expected(ids);
  std::vector<std::int32_t> got(ids);
  std::vector<SampledRow> expected_flags(kRows);
  std::vector<SampledRow> got_flags(kRows);
  for (int step = 0; step < steps; ++step) {
    std::shuffle(rows.begin(), rows.end(), random);
    const std::vector<float> logits = random_logits(random, ids, vocab);
    gpu.copy_from_host(device_logits.get(), logits.data(), logits.size() * sizeof(float));
    cpu_sampler->advance(logits.data(), rows);
    gpu_sampler->advance(static_cast<const float*>(device_logits.get()), rows);
    cpu_sampler->fetch(expected, expected_flags);
    gpu_sampler->fetch(got, got_flags);
    EXPECT(got == expected);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(got_flags[i].finished, expected_flags[i].finished);
      EXPECT_EQ(got_flags[i].failed, expected_flags[i].failed);
      if (expected_flags[i].finished) open(rows[i]);
    }
  }
  std::vector<std::int32_t> last(ids);
  gpu.copy_to_host(last.data(), gpu_sampler->last_columns(), ids * sizeof(std::int32_t));
  EXPECT(std::equal(last.begin(), last.end(), cpu_sampler->last_columns()));
}

}  // namespace

// About 75,000 sampled rows of logits together.
TEST("cuda sampler: columns are bitwise those of the CPU sampler") {
  const auto gpu = gpu_or_skip();
  const int part = few_only() ? 20 : 1;
  compare(*gpu, 8, 1026, 60 / part);
  compare(*gpu, 8, 258, 60 / part);
  compare(*gpu, 1, 4096, 20 / part);
  compare(*gpu, 16, 35, 30 / part);
}

TEST("cuda sampler: a vocabulary beyond the shared memory is refused") {
  const auto gpu = gpu_or_skip();
  EXPECT_THROWS(make_cuda_sampler({1, 16, 4096}, *gpu), "expected num_codebooks x codebook_vocab");
}
