#include "bench/report.h"

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "core/check.h"

namespace higgs_rt::bench {

Timing measure(double seconds, const std::function<void()>& body) {
  using Clock = std::chrono::steady_clock;
  body();
  std::vector<double> times;
  const auto start = Clock::now();
  double total = 0.0;
  while (total < seconds || times.size() < 5) {
    const auto begin = Clock::now();
    body();
    const auto end = Clock::now();
    times.push_back(std::chrono::duration<double, std::micro>(end - begin).count());
    total = std::chrono::duration<double>(end - start).count();
  }
  std::sort(times.begin(), times.end());
  return {times.front(), times[times.size() / 2]};
}

void Report::add(const Row& row) {
  if (row.group != last_group_) {
    std::printf("\n%s\n%-34s %5s %11s %11s %8s %6s %9s %9s %7s\n", row.group.c_str(), "", "rows",
                "best us", "median us", "GB/s", "of bw", "GFLOP/s", "OpenBLAS", "ratio");
    last_group_ = row.group;
  }
  std::printf("%-34s %5lld %11.1f %11.1f", row.name.c_str(), static_cast<long long>(row.rows),
              row.microseconds, row.median_microseconds);
  const double rate = row.bytes / row.microseconds * 1e6;
  if (row.bytes > 0.0) {
    std::printf(" %8.1f %5.0f%%", rate / 1e9, bandwidth_ > 0.0 ? 100.0 * rate / bandwidth_ : 0.0);
  } else {
    std::printf(" %8s %6s", "", "");
  }
  if (row.flops > 0.0) std::printf(" %9.1f", row.flops / row.microseconds / 1e3);
  if (row.openblas_microseconds > 0.0) {
    std::printf(" %9.1f %6.2fx", row.flops / row.openblas_microseconds / 1e3,
                row.openblas_microseconds / row.microseconds);
  }
  std::printf("\n");
  std::fflush(stdout);
  rows_.push_back(row);
}

void Report::write_json(const std::string& isa, int threads) const {
  std::ofstream file(options_.json);
  check(file.good(), "--json", "expected a file that can be written, got ", options_.json);
  file << "{\"isa\": \"" << isa << "\", \"threads\": " << threads
       << ", \"bandwidth_bytes_per_second\": " << bandwidth_ << ", \"rows\": [";
  const char* separator = "\n";
  for (const Row& row : rows_) {
    file << separator << "{\"group\": \"" << row.group << "\", \"name\": \"" << row.name
         << "\", \"rows\": " << row.rows << ", \"best_us\": " << row.microseconds
         << ", \"median_us\": " << row.median_microseconds << ", \"bytes\": " << row.bytes
         << ", \"flops\": " << row.flops << ", \"openblas_us\": " << row.openblas_microseconds
         << '}';
    separator = ",\n";
  }
  file << "\n]}\n";
}

Tensor Machine::random(Shape shape, DType dtype) {
  Tensor tensor(*device, dtype, std::move(shape));
  pool.parallel_for(tensor.view().size(), 1 << 16, [&](std::int64_t begin, std::int64_t end) {
    auto state = static_cast<std::uint32_t>(begin * 2654435761 + 12345);
    for (std::int64_t i = begin; i < end; ++i) {
      state = state * 1664525u + 1013904223u;
      const float value = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-37f;
      if (dtype == DType::kBF16) {
        tensor.as<BF16>()[i] = to_bf16(value);
      } else {
        tensor.as<float>()[i] = value;
      }
    }
  });
  return tensor;
}

}  // namespace higgs_rt::bench
