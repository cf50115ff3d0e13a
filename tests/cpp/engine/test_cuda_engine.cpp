// The native engine on CUDA against the golden logits, and its graphs against its eager steps. The
// graphs' part runs on the CPU too, where a graph is the same calls again.
#include "check.h"
#include "engine/golden.h"
#include "few.h"
#include "model/random_adapter.h"
#include "require_cuda.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

struct Golden {
  std::string layout;
  float tolerance;  // fp32 weights; bf16 weights and activations, logits of order 1
};
const std::vector<Golden>& layouts() {
  static const std::vector<Golden> all = {{"transformers", 1e-3f}, {"original", 0.15f}};
  return all;
}

// `count` copies of the golden sequence: texts first, then decode steps whose columns are fed back
// on the device. Logits of all decode steps, [steps][count, codebooks, vocabulary].
std::vector<Logits> decode(Model& model, const std::string& layout, std::int32_t count,
                           bool with_graphs) {
  Engine& engine = model.engine();
  const auto books = static_cast<std::size_t>(engine.spec().num_codebooks);
  const auto memory = engine.device().allocate(4 * books * sizeof(std::int32_t));
  const auto* last = static_cast<const std::int32_t*>(memory.get());
  std::vector<std::int32_t> columns(4 * books, engine.spec().codebook_vocab - 2);
  const auto upload = [&] {
    engine.device().copy_from_host(memory.get(), columns.data(),
                                   columns.size() * sizeof(columns[0]));
    engine.device().synchronize();
  };
  upload();
  int tails = 0;
  if (with_graphs) {
    engine.attach({last, 4, [&](const float*, const std::int32_t*, std::int32_t) { ++tails; }});
  }
  std::vector<Sequence> sequences;
  for (std::int32_t s = 0; s < count; ++s) {
    sequences.push_back(golden_sequence(layout, s, 4));
    sequences.back().adapter = s % (static_cast<int>(engine.spec().adapters.size()) + 1) - 1;
  }
  std::size_t first = sequences[0].positions.size();  // of the columns at the end
  while (sequences[0].positions[first - 1].is_audio()) --first;
  for (Sequence& sequence : sequences) {
    step(engine, {{&sequence, static_cast<std::int32_t>(first)}}, last);
  }
  const int before = tails;
  std::vector<Logits> all;
  for (std::size_t p = first; p < sequences[0].positions.size(); ++p) {
    std::vector<Portion> portions;
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      Position& position = sequences[s].positions[p];
      std::copy(position.column.begin(), position.column.end(),
                columns.begin() + static_cast<std::ptrdiff_t>(s * books));
      position.column.clear();
      position.feedback = static_cast<std::int32_t>(s);
      portions.push_back({&sequences[s], 1});
    }
    upload();
    Logits& logits = all.emplace_back();
    for (const Logits& part : step(engine, portions, last)) {
      logits.insert(logits.end(), part.begin(), part.end());
    }
  }
  if (with_graphs && engine.device().kind() == DeviceKind::kCuda) {
    EXPECT_EQ(tails, before);  // no decode step ran eagerly
  }
  engine.attach({});
  return all;
}

void expect_graphs_equal_eager(const std::function<std::unique_ptr<Device>()>& device,
                               float tolerance, bool with_adapters = false) {
  for (const Golden& c : all_or_few(layouts(), {layouts()[1]})) {
    const RandomAdapter first(golden_dir() + c.layout, 4, 1), second(golden_dir() + c.layout, 8, 2);
    std::vector<NamedAdapter> adapters;
    if (with_adapters) adapters = {{"first", first.path()}, {"second", second.path()}};
    for (const std::int32_t count : all_or_few<std::int32_t>({1, 2, 3, 4}, {3})) {
      Model eager(c.layout, 64, device(), true, true, adapters);
      Model graphs(c.layout, 64, device(), true, true, adapters);
      const auto expected = decode(eager, c.layout, count, false);
      const auto got = decode(graphs, c.layout, count, true);
      float largest = 0;
      for (std::size_t i = 0; i < expected.size(); ++i) {
        largest = std::max(largest, largest_difference(got[i], expected[i]));
      }
      EXPECT(largest <= (c.layout == "original" ? 100 * tolerance : tolerance));
    }
  }
}

}  // namespace

TEST("engine: padded graphs equal to eager steps on the CPU, bit for bit") {
  expect_graphs_equal_eager(make_cpu_device, 0);
}

TEST("engine: padded graphs with adapters equal to eager steps on the CPU, bit for bit") {
  expect_graphs_equal_eager(make_cpu_device, 0, true);
}

TEST("engine: cuda graphs of padded batches with adapters equal to eager steps") {
  require_cuda();
  expect_graphs_equal_eager(require_cuda, 1e-4f, true);
}

TEST("engine: cuda graphs of padded batches equal to eager steps") {
  require_cuda();
  expect_graphs_equal_eager(require_cuda, 1e-4f);
}

TEST("engine: cuda logits equal to transformers', fp32 tightly, bf16 within its rounding") {
  require_cuda();
  for (const Golden& c : all_or_few(layouts(), {layouts()[1]})) {
    for (const std::vector<std::int32_t>& sizes : all_or_few<std::vector<std::int32_t>>(
             {{64}, {1}, {7}, {10, 1, 16, 5, 2}}, {{10, 1, 16, 5, 2}})) {
      Model model(c.layout, 64, require_cuda());
      Sequence sequence = golden_sequence(c.layout, 47, -3);
      const float difference =
          largest_difference(feed(model.engine(), sequence, sizes), golden_logits(c.layout));
      std::cout << "  " << c.layout << ": largest difference " << difference << '\n';
      EXPECT(difference <= c.tolerance);
    }
  }
}

TEST("engine: cuda gives a prompt the same bits in every chunking, bf16 too") {
  require_cuda();
  for (const Golden& c : all_or_few(layouts(), {layouts()[1]})) {
    const auto logits = [&](const std::vector<std::int32_t>& sizes) {
      Model model(c.layout, 64, require_cuda());
      Sequence sequence = golden_sequence(c.layout, 47, -3);
      return feed(model.engine(), sequence, sizes);
    };
    const Logits whole = logits({64});
    for (const std::vector<std::int32_t>& sizes : all_or_few<std::vector<std::int32_t>>(
             {{1}, {7}, {17}, {33, 1}, {10, 1, 16, 5, 2}}, {{33, 1}})) {
      EXPECT(logits(sizes) == whole);
    }
  }
}

TEST("engine: cuda memory plan refuses what does not fit, with the numbers") {
  const auto device = require_cuda();
  ThreadPool pool(1);
  EngineConfig config;
  config.model_dir = golden_dir() + "transformers";
  config.max_positions = 64;
  config.num_blocks = 1 << 26;
  EXPECT_THROWS(load_engine(config, *device, pool), "expected room for 67108864 KV blocks");
  config.num_blocks = 0;
  config.gpu_memory_fraction = 1e-9;
  EXPECT_THROWS(load_engine(config, *device, pool), "one request of max_sequence");
  config.gpu_memory_fraction = 0.5;
  const LoadedEngine loaded = load_engine(config, *device, pool);
  EXPECT_EQ(loaded.info.num_blocks, 32 * 4);  // max_sequences of max_positions
  EXPECT(loaded.info.weight_bytes > 0 && loaded.info.workspace_bytes > 0);
}
