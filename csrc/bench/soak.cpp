// Many requests with random cancels in one process: none may fail, memory must stay constant, and a
// sample must give the columns that each request gives alone.
//   higgs_soak --device cuda --requests 20000
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "api/config_check.h"
#include "bench/command_line.h"
#include "bench/gpu.h"
#include "bench/random_checkpoint.h"
#include "bench/scratch_folder.h"
#include "core/device.h"
#include "higgs_rt/runtime.h"

namespace higgs_rt::bench {
namespace {

constexpr const char* kUsage =
    R"(usage: higgs_soak [options]; exits with 1 when anything is not as it must be
  --model DIR         (default: random fp32 weights of the demo voice's shape)
  --device cpu|cuda:N (default cpu)
  --requests N        (default 20000)
  --concurrency N     requests at once (default 64)
  --sample N          requests that are run again alone (default 200)
  --columns N         most columns of a request (default 120)
  --seed N            (default 1)
)";

// Growth of memory that still counts as constant.
constexpr std::int64_t kSlack = 32ll << 20;
// Among so many requests some must have been preempted.
constexpr std::int32_t kManyRequests = 10000;

struct Options {
  std::string model, device = "cpu";
  std::int32_t requests = 20000, concurrency = 64, sample = 200, columns = 120, seed = 1;
};

Options parse(int argc, char** argv) {
  Options options;
  CommandLine line("higgs_soak");
  line.text("--model", options.model);
  line.text("--device", options.device);
  line.number("--requests", options.requests, 1);
  line.number("--concurrency", options.concurrency, 1, kMaxBatch);
  line.number("--sample", options.sample, 1);
  line.number("--columns", options.columns, 1, 1 << 16);
  line.number("--seed", options.seed, 1);
  line.parse(argc, argv);
  return options;
}

// Prompt, length and sampling follow from the number alone.
Request make_request(const Options& options, std::int32_t number, const ModelInfo& info) {
  std::mt19937_64 random(static_cast<std::uint64_t>(options.seed) << 32 |
                         static_cast<std::uint64_t>(number));
  const auto draw = [&](std::int32_t low, std::int32_t high) {
    return low + static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(high - low + 1));
  };
  Request request;
  request.output = OutputKind::kFrames;
  const auto add = [&](PromptSegment::Kind kind, std::int32_t count, std::int32_t limit) {
    PromptSegment& segment = request.prompt.emplace_back();
    segment.kind = kind;
    for (std::int32_t i = 0; i < count; ++i) segment.ids.push_back(draw(0, limit - 1));
  };
  if (draw(0, 2) == 0) {
    add(PromptSegment::Kind::kAudio, draw(1, 40) * info.num_codebooks, info.codebook_vocab - 2);
  }
  add(PromptSegment::Kind::kText, draw(1, 100), info.text_vocab);
  request.max_columns = draw(1, options.columns);
  request.sampling.temperature = draw(0, 3) == 0 ? 0.0F : 0.9F;
  request.sampling.seed = random();
  return request;
}

std::int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

class Soak {
 public:
  Soak(const Options& options, Runtime& runtime)
      : options_(options),
        runtime_(runtime),
        device_(make_device(options.device)),
        every_(std::max(1, options.requests / options.sample)) {}

  bool run() {
    std::mt19937 random(static_cast<unsigned>(options_.seed));
    for (std::int32_t number = 0; number < options_.requests; ++number) {
      wait_for_room(options_.concurrency - 1);
      submit(number);
      if (random() % 4 == 0) cancel(static_cast<std::size_t>(random()));
      // By now every shape of step has been seen.
      if (number == options_.requests / 5) begin_ = memory();
    }
    wait_for_room(0);
    const Memory end = memory();
    report(end);
    return failed_ == 0 && compare() == 0 && constant(begin_.device, end.device) &&
           constant(begin_.host, end.host) && all_blocks_free() && preempted();
  }

 private:
  struct Memory {
    std::int64_t device = 0, host = 0;
  };
  struct Running {
    std::int32_t number = 0;
    Stream stream;
  };

  bool is_sampled(std::int32_t number) const { return number % every_ == 0; }

  // Of this process, where NVML tells it apart; otherwise of the whole GPU.
  Memory memory() {
    if (device_->kind() == DeviceKind::kCpu) return {0, resident_bytes()};
    const int ordinal = options_.device.size() > 5 ? std::atoi(options_.device.c_str() + 5) : 0;
    const std::int64_t own = own_gpu_memory(ordinal);
    own_memory_ = own >= 0;
    const DeviceMemory gpu = device_->memory();
    const auto used = static_cast<std::int64_t>(gpu.total_bytes - gpu.free_bytes);
    return {own_memory_ ? own : used, resident_bytes()};
  }

  void submit(std::int32_t number) {
    Stream stream = runtime_.submit(make_request(options_, number, runtime_.info()));
    {
      const std::scoped_lock lock(mutex_);
      running_.push_back({number, stream});
    }
    stream.on_chunk([this, number](const Chunk& chunk) {
      if (chunk.last) end(number, chunk);
    });
  }

  void end(std::int32_t number, const Chunk& chunk) {
    {
      const std::scoped_lock lock(mutex_);
      if (chunk.finish == FinishReason::kError) {
        ++failed_;
        std::cerr << "request " << number << " failed: " << chunk.error << '\n';
      }
      cancelled_ += chunk.finish == FinishReason::kCancelled ? 1 : 0;
      columns_ += static_cast<std::int64_t>(chunk.columns.size());
      if (is_sampled(number)) sampled_[number] = chunk.columns;
      ended_.push_back(number);
    }
    changed_.notify_one();
  }

  void wait_for_room(std::int32_t running) {
    std::unique_lock lock(mutex_);
    while (true) {
      for (const std::int32_t number : ended_) {
        std::erase_if(running_, [&](const Running& item) { return item.number == number; });
      }
      ended_.clear();
      if (std::ssize(running_) <= running) return;
      changed_.wait(lock, [&] { return !ended_.empty(); });
    }
  }

  // Not one that is compared.
  void cancel(std::size_t draw) {
    const std::scoped_lock lock(mutex_);
    if (running_.empty()) return;
    Running& chosen = running_[draw % running_.size()];
    if (!is_sampled(chosen.number)) chosen.stream.cancel();
  }

  // Requests of the sample whose columns differ from those alone.
  std::int32_t compare() {
    std::int32_t different = 0;
    for (const auto& [number, columns] : sampled_) {
      Stream stream = runtime_.submit(make_request(options_, number, runtime_.info()));
      Chunk chunk;
      while (stream.next(chunk)) {
      }
      different += chunk.columns == columns ? 0 : 1;
    }
    std::printf("%zu requests run again alone, %d differ\n", sampled_.size(), different);
    return different;
  }

  static bool constant(std::int64_t begin, std::int64_t end) { return end - begin <= kSlack; }

  bool all_blocks_free() const {
    const RuntimeStats stats = runtime_.stats();
    return stats.free_blocks == stats.total_blocks;
  }

  bool preempted() const {
    return options_.requests < kManyRequests || runtime_.stats().preemptions > 0;
  }

  void report(const Memory& end) const {
    const RuntimeStats stats = runtime_.stats();
    std::printf(
        "%d requests, %d failed, %d cancelled, %lld preemptions, %lld steps, %lld columns\n"
        "memory from 20 %% of the requests to the end: GPU%s %+.1f MiB, host %+.1f MiB; free KV "
        "blocks %d of %d\n",
        options_.requests, failed_, cancelled_, static_cast<long long>(stats.preemptions),
        static_cast<long long>(stats.steps), static_cast<long long>(stats.columns),
        own_memory_ ? " (this process)" : "",
        static_cast<double>(end.device - begin_.device) / (1 << 20),
        static_cast<double>(end.host - begin_.host) / (1 << 20), stats.free_blocks,
        stats.total_blocks);
  }

  const Options& options_;
  Runtime& runtime_;
  std::unique_ptr<Device> device_;
  const std::int32_t every_;
  Memory begin_;
  bool own_memory_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Running> running_;
  std::deque<std::int32_t> ended_;
  std::map<std::int32_t, std::vector<std::int32_t>> sampled_;
  std::int32_t failed_ = 0, cancelled_ = 0;
  std::int64_t columns_ = 0;
};

int run(const Options& options) {
  make_device(options.device);  // one that is not there is told before a model is written
  std::unique_ptr<ScratchFolder> scratch;
  std::string model = options.model;
  if (model.empty()) {
    scratch = std::make_unique<ScratchFolder>("higgs_soak");
    write_random_lm(model = scratch->path(), demo_lm_shape(), DType::kF32, 1);
  }
  RuntimeConfig config;
  config.model_dir = model;
  config.codec_dir = "none";
  config.device = options.device;
  config.max_batch = options.concurrency;
  config.max_queue = options.concurrency;
  config.max_sequence = 200 + options.columns;
  // Small blocks, and fewer than all need, so that requests are preempted.
  config.block_tokens = 4;
  config.num_blocks =
      (config.max_sequence / config.block_tokens + 1) * std::max(1, options.concurrency / 8);
  bool good = false;
  {
    const auto runtime = Runtime::load(config);
    good = Soak(options, *runtime).run();
  }
  std::printf("%s\n", good ? "ok" : "FAILED");
  return good ? 0 : 1;
}

}  // namespace
}  // namespace higgs_rt::bench

int main(int argc, char** argv) {
  using namespace higgs_rt::bench;
  return run_main(argc, argv, kUsage, 2, [&] { return run(parse(argc, argv)); });
}
