#include "bench/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

namespace higgs_rt::bench {
namespace {

constexpr std::int64_t kWords = std::int64_t{1} << 26;  // 512 MiB
constexpr std::int64_t kGrain = std::int64_t{1} << 18;  // 2 MiB a piece
constexpr int kPasses = 15;

// One stream alone does not fill the memory channels, so eight are read side by side.
std::uint64_t sum(const std::uint64_t* begin, std::int64_t count) {
  constexpr std::int64_t kStreams = 8;
  constexpr std::int64_t kLine = 8;  // words of a cache line
  const std::int64_t stride = count / kStreams;
  std::uint64_t lanes[kStreams * kLine] = {};
  for (std::int64_t i = 0; i < stride; i += kLine) {
    for (std::int64_t s = 0; s < kStreams; ++s) {
      for (std::int64_t j = 0; j < kLine; ++j) {
        lanes[s * kLine + j] += begin[s * stride + i + j];
      }
    }
  }
  std::uint64_t total = 0;
  for (const std::uint64_t lane : lanes) total += lane;
  return total;
}

}  // namespace

double measure_read_bandwidth(ThreadPool& pool) {
  const std::vector<std::uint64_t> buffer(kWords, 1);
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    std::atomic<std::uint64_t> total = 0;
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(kWords, kGrain, [&](std::int64_t begin, std::int64_t end) {
      total += sum(buffer.data() + begin, end - begin);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    // The sum is used, so the reads cannot be left out.
    if (total.load() != kWords) return 0;
    best = std::max(best, static_cast<double>(kWords) * sizeof(std::uint64_t) / seconds.count());
  }
  return best;
}

}  // namespace higgs_rt::bench
