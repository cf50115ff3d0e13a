#include "bench/cuda_decode_stamps.h"

#include <algorithm>
#include <cstdio>

#include "ops/cuda/decode_stamps.h"

namespace higgs_rt::bench {

namespace {

struct Span {
  const char* name;
  int begin, end;  // DecodeStamp; kDecodeStamps: the next layer's begin
  bool attends;    // of blocks with attention only
};
constexpr Span kSpans[] = {
    {"qkv: waiting", kStampQkv, kStampQkvInputs, false},
    {"     product", kStampQkvInputs, kStampAttention, false},
    {"attention", kStampAttention, kStampAttended, true},
    {"     queries", kStampAttention, kStampQueries, true},
    {"     pieces", kStampQueries, kStampPieces, true},
    {"     joining", kStampPieces, kStampAttended, true},
    {"o: waiting", kStampAttended, kStampOInputs, false},
    {"     product", kStampOInputs, kStampGateUp, false},
    {"gate, up: waiting", kStampGateUp, kStampGateUpInputs, false},
    {"     product", kStampGateUpInputs, kStampDown, false},
    {"down: waiting", kStampDown, kStampDownInputs, false},
    {"     product", kStampDownInputs, kDecodeStamps, false},
};

}  // namespace

void print_decode_stamps(const std::vector<std::int64_t>& clocks, std::int64_t layers,
                         std::int64_t attending) {
  const auto at = [&](std::int64_t block, std::int64_t layer, int stamp) {
    const std::int64_t row = block * layers + layer;
    return static_cast<double>(clocks[static_cast<std::size_t>(row * kDecodeStamps + stamp)]);
  };
  for (const Span& span : kSpans) {
    std::vector<double> cycles;
    for (std::int64_t b = 0; b < (span.attends ? attending : kDecodeBlocks); ++b) {
      for (std::int64_t l = 1; l + 1 < layers; ++l) {
        const double end = span.end == kDecodeStamps ? at(b, l + 1, kStampQkv) : at(b, l, span.end);
        cycles.push_back(end - at(b, l, span.begin));
      }
    }
    std::sort(cycles.begin(), cycles.end());
    double sum = 0.0;
    for (const double value : cycles) sum += value;
    const auto share = [&](std::size_t percent) { return cycles[cycles.size() * percent / 100]; };
    std::printf("    %-20s mean %7.0f cycles, 10 %% %7.0f, 50 %% %7.0f, 90 %% %7.0f\n", span.name,
                sum / static_cast<double>(cycles.size()), share(10), share(50), share(90));
  }
}

}  // namespace higgs_rt::bench
