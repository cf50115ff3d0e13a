// The whole language path, request to columns, on every device and in every mode: the same columns.
#include <chrono>
#include <iostream>
#include <random>
#include <thread>

#include "api/stack.h"
#include "bench/random_checkpoint.h"
#include "check.h"
#include "few.h"
#include "io/temporary_directory.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

using Random = std::mt19937;

std::int32_t draw(Random& random, std::int32_t low, std::int32_t high) {
  return std::uniform_int_distribution<std::int32_t>(low, high)(random);
}

// Shapes with several ratios of heads, odd widths and codebooks.
std::vector<RandomLmShape> shapes() {
  return {{},
          {.hidden = 128, .layers = 3, .heads = 6, .kv_heads = 2, .head_dim = 32, .ffn = 160},
          {.hidden = 96,
           .layers = 2,
           .heads = 4,
           .kv_heads = 4,
           .head_dim = 64,
           .ffn = 200,
           .vocab = 500,
           .codebook_size = 62,
           .num_codebooks = 4}};
}

EngineConfig small_engine(const std::string& directory, std::int32_t max_sequences = 6) {
  EngineConfig config;
  config.model_dir = directory;
  config.max_rows = 48;
  config.max_sequences = max_sequences;
  config.max_positions = 136;
  config.block_tokens = 8;
  config.num_blocks = 18;
  return config;
}

PromptSegment random_segment(Random& random, const RandomLmShape& shape, int kind) {
  PromptSegment segment;
  segment.kind = static_cast<PromptSegment::Kind>(kind);
  const auto add_ids = [&](std::int32_t count, std::int32_t limit) {
    for (std::int32_t i = 0; i < count; ++i) segment.ids.push_back(draw(random, 0, limit - 1));
  };
  if (segment.kind == PromptSegment::Kind::kText) {
    add_ids(draw(random, 1, 40), shape.vocab);
  } else if (segment.kind == PromptSegment::Kind::kAudio) {
    add_ids(draw(random, 1, 20) * shape.num_codebooks, shape.codebook_size);
  } else {
    segment.rows.resize(static_cast<std::size_t>(draw(random, 1, 5) * shape.hidden));
    for (float& value : segment.rows) value = 0.01F * static_cast<float>(draw(random, -99, 99));
  }
  return segment;
}

// Plain, cloned and table prompts; greedy or sampled.
std::vector<Request> random_requests(const RandomLmShape& shape, unsigned seed, int count,
                                     bool greedy) {
  Random random(seed);
  std::vector<Request> requests(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    Request& request = requests[static_cast<std::size_t>(i)];
    if (i % 3 != 0) request.prompt.push_back(random_segment(random, shape, i % 3));
    request.prompt.push_back(random_segment(random, shape, 0));
    request.max_columns = draw(random, 1, 60);
    request.sampling.seed = static_cast<std::uint64_t>(random());
    request.sampling.temperature = greedy ? 0.0F : 1.0F;
    request.sampling.ras_window = greedy ? 0 : 7;
    request.sampling.top_k = draw(random, 0, 1) * 20;
  }
  return requests;
}

void expect_equal(const std::vector<Columns>& got, const std::vector<Columns>& expected) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(got[i].error, "");
    EXPECT(got[i] == expected[i]);
  }
}

}  // namespace

TEST("devices: padded graphs, one step ahead of the host, change no column on the CPU") {
  for (const RandomLmShape& shape : shapes()) {
    const TemporaryDirectory directory;
    write_random_lm(directory.path(), shape, DType::kF32, 3);
    Stack plain(make_cpu_device(), small_engine(directory.path()));
    Stack ahead(make_cpu_device(), small_engine(directory.path()), true);
    EXPECT(!plain.loaded.engine->spec().asynchronous && ahead.loaded.engine->spec().asynchronous);
    for (unsigned seed = 0; seed < 2; ++seed) {
      const auto requests = random_requests(shape, seed, 20, false);
      expect_equal(ahead.run(requests), plain.run(requests));
    }
    const RuntimeStats stats = ahead.executor->stats();
    EXPECT(stats.preemptions > 0);
    EXPECT(stats.graph_steps > 0 && stats.graph_steps < stats.steps);
    EXPECT(stats.graph_rows >= stats.graph_steps);
    EXPECT_EQ(plain.executor->stats().graph_steps, 0);
    ahead.executor->shutdown();
    EXPECT_EQ(ahead.executor->stats().free_blocks, ahead.loaded.engine->spec().kv.num_blocks);
  }
}

TEST("devices: cuda gives the CPU's greedy columns in fp32, in every shape, prompt and batch") {
  require_cuda();
  for (const RandomLmShape& shape : all_or_few(shapes(), {shapes()[1]})) {
    const TemporaryDirectory directory;
    write_random_lm(directory.path(), shape, DType::kF32, 5);
    Stack cpu(make_cpu_device(), small_engine(directory.path()));
    Stack cuda(require_cuda(), small_engine(directory.path()));
    const auto requests = random_requests(shape, 9, few_only() ? 6 : 24, true);
    expect_equal(cuda.run(requests), cpu.run(requests));
  }
}

TEST("devices: every cuda GPU of a process gives the same columns, bf16") {
  const RandomLmShape shape = {
      .hidden = 256, .layers = 2, .heads = 6, .kv_heads = 2, .head_dim = 128, .ffn = 512};
  const TemporaryDirectory directory;
  const auto requests = random_requests(shape, 14, few_only() ? 4 : 16, false);
  std::vector<Columns> first;
  auto devices = require_all_cuda();
  write_random_lm(directory.path(), shape, DType::kBF16, 14);
  std::vector<std::unique_ptr<Stack>> stacks;  // side by side, as in a process that serves with all
  for (auto& device : devices) {
    stacks.push_back(std::make_unique<Stack>(std::move(device), small_engine(directory.path())));
  }
  for (const auto& stack : stacks) {
    const std::vector<Columns> columns = stack->run(requests);
    if (first.empty()) first = columns;
    expect_equal(columns, first);
  }
  std::cout << "  " << stacks.size() << " GPUs\n";
}

TEST("devices: cuda gives a request the same columns alone and among others, sampled, fp32") {
  require_cuda();
  for (const RandomLmShape& shape : all_or_few(shapes(), {shapes()[1]})) {
    const TemporaryDirectory directory;
    write_random_lm(directory.path(), shape, DType::kF32, 6);
    Stack cuda(require_cuda(), small_engine(directory.path()));
    const auto requests = random_requests(shape, 11, few_only() ? 6 : 40, false);
    const std::vector<Columns> together = cuda.run(requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      expect_equal(cuda.run({requests[i]}), {together[i]});
    }
  }
}

TEST("devices: cuda with bf16 weights runs every prompt and ends clean") {
  require_cuda();
  const RandomLmShape shape = shapes()[1];
  const TemporaryDirectory directory;
  write_random_lm(directory.path(), shape, DType::kBF16, 7);
  Stack cuda(require_cuda(), small_engine(directory.path(), 37));
  for (const Columns& columns :
       cuda.run(random_requests(shape, 12, few_only() ? 10 : 100, false))) {
    EXPECT_EQ(columns.error, "");
    EXPECT(columns.reason == FinishReason::kStop || columns.reason == FinishReason::kLength);
  }
  cuda.executor->shutdown();
  EXPECT_EQ(cuda.executor->stats().free_blocks, cuda.loaded.engine->spec().kv.num_blocks);
}

// The guarantee of docs/gpu.md: up to 16 decode rows share their bits, prompts have the same in
// every chunking, and no position is computed now as one and now as the other.
TEST("devices: cuda gives a request the same columns alone and among others, sampled, bf16") {
  require_cuda();
  const RandomLmShape shape = {.hidden = 256,
                               .layers = 3,
                               .heads = 6,
                               .kv_heads = 2,
                               .head_dim = 64,
                               .ffn = 512,
                               .endless = true};
  const TemporaryDirectory directory;
  write_random_lm(directory.path(), shape, DType::kBF16, 21);
  EngineConfig crowded = small_engine(directory.path(), 13), roomy = crowded;
  crowded.num_blocks = 34;
  crowded.max_positions = roomy.max_positions = 264;
  roomy.num_blocks = 0;
  roomy.max_rows = 200;
  Stack together(require_cuda(), crowded), alone(require_cuda(), roomy);
  Random random(22);
  std::vector<Request> requests = random_requests(shape, 23, few_only() ? 10 : 60, false);
  const Request voices[] = {requests[1], requests[2], requests[4]};
  for (Request& request : requests) {
    if (draw(random, 0, 1) == 0) continue;
    const Request& voice = voices[draw(random, 0, 2)];
    request.prompt.insert(request.prompt.begin(), voice.prompt.begin(), voice.prompt.end());
  }
  std::vector<std::shared_ptr<ColumnCollector>> sinks;
  // More than the blocks hold, and none starts before they all wait, so some are preempted.
  const std::size_t at_once = std::min<std::size_t>(24, requests.size());
  std::promise<void> many_wait;
  const std::shared_future<void> gate = many_wait.get_future().share();
  for (const Request& request : requests) {
    sinks.push_back(std::make_shared<ColumnCollector>(gate));
    together.executor->submit(request, sinks.back());
    if (sinks.size() == at_once) many_wait.set_value();
    if (sinks.size() < at_once) continue;
    std::this_thread::sleep_for(
        std::chrono::microseconds(draw(random, 0, 1) * draw(random, 0, 600)));
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    expect_equal({sinks[i]->wait()}, alone.run({requests[i]}));
  }
  const RuntimeStats stats = together.executor->stats();
  std::cout << "  " << stats.preemptions << " preemptions, " << stats.prefix_hits
            << " prompt positions shared, " << stats.graph_steps << " of " << stats.steps
            << " steps were graphs\n";
  EXPECT(few_only() || (stats.preemptions > 0 && stats.prefix_hits > 0));
}

TEST("devices: random cancels on cuda harm no other request, in fp32") {
  require_cuda();
  const RandomLmShape shape = shapes()[0];
  const TemporaryDirectory directory;
  write_random_lm(directory.path(), shape, DType::kF32, 8);
  Stack cpu(make_cpu_device(), small_engine(directory.path()));
  Stack cuda(require_cuda(), small_engine(directory.path()));
  const auto requests = random_requests(shape, 13, few_only() ? 10 : 60, true);
  const std::vector<Columns> expected = cpu.run(requests);
  Random random(17);
  std::vector<std::shared_ptr<ColumnCollector>> sinks;
  std::vector<std::uint64_t> ids;
  for (const Request& request : requests) {
    sinks.push_back(std::make_shared<ColumnCollector>());
    ids.push_back(cuda.executor->submit(request, sinks.back()));
    if (draw(random, 0, 2) == 0) {
      cuda.executor->cancel(ids[static_cast<std::size_t>(draw(random, 0, 99)) % ids.size()]);
    }
  }
  for (std::size_t i = 0; i < sinks.size(); ++i) {
    const Columns got = sinks[i]->wait();
    EXPECT_EQ(got.error, "");
    if (got.reason == FinishReason::kCancelled) {
      EXPECT(got.ids.size() <= expected[i].ids.size() &&
             std::equal(got.ids.begin(), got.ids.end(), expected[i].ids.begin()));
    } else {
      EXPECT(got == expected[i]);
    }
  }
}
