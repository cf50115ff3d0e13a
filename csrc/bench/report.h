// Timing and output of the kernel benchmark.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/tensor.h"
#include "core/thread_pool.h"
#include "ops/ops.h"

namespace higgs_rt::bench {

struct Options {
  std::string device = "cpu";
  int threads = 0;        // 0: all
  int layers = 4;         // of the emulated decode step; 0.2 GB each
  double seconds = 0.25;  // per measurement
  std::string filter;     // only groups whose name contains it
  std::string json;       // file, or empty
};

struct Row {
  std::string group;
  std::string name;
  std::int64_t rows = 0;      // batch rows, or frames of the codec
  double microseconds = 0.0;  // best of all repetitions
  double median_microseconds = 0.0;
  double bytes = 0.0;  // read from memory per repetition; 0: not bound by memory
  double flops = 0.0;
  double openblas_microseconds = 0.0;  // 0: not measured
};

struct Timing {
  double best = 0.0;  // microseconds
  double median = 0.0;
};

// Repeats `body` for about `seconds`, at least five times, after one run that is not counted.
Timing measure(double seconds, const std::function<void()>& body);

class Report {
 public:
  explicit Report(const Options& options) : options_(options) {}
  bool wants(const std::string& group) const {
    return group.find(options_.filter) != std::string::npos;
  }
  const Options& options() const { return options_; }
  void set_bandwidth(double bytes_per_second) { bandwidth_ = bytes_per_second; }
  // Prints the row as a line of the table.
  void add(const Row& row);
  void write_json(const std::string& isa, int threads) const;

 private:
  Options options_;
  double bandwidth_ = 0.0;
  std::string last_group_;
  std::vector<Row> rows_;
};

// What the measurements run on, and random data for them.
struct Machine {
  explicit Machine(int threads)
      : device(make_cpu_device()), pool(threads), ops(make_cpu_ops(*device, pool)) {}
  // Numbers in [-1, 1) / 64, fp32 or bf16, filled by all threads.
  Tensor random(Shape shape, DType dtype = DType::kF32);

  std::unique_ptr<Device> device;
  ThreadPool pool;
  std::unique_ptr<Ops> ops;
};

// Measures the read bandwidth of main memory with all threads and reports it.
void bench_bandwidth(Machine& machine, Report& report);
void bench_linear(Machine& machine, Report& report);
void bench_conv(Machine& machine, Report& report);
void bench_steps(Machine& machine, Report& report);

}  // namespace higgs_rt::bench
