// Shapes of the codec's convolutions, for the CPU's operations and the GPU's.
#pragma once

#include "ops_test.h"

namespace higgs_rt::testing {

struct Shape1d {
  std::int64_t channels, outputs, taps, times;
  Ops::Conv1d conv;
};

inline const Shape1d kConvs[] = {
    {1, 1, 1, 1, {}},
    {3, 5, 7, 20, {1, 1, 3, 0}},
    {10, 10, 7, 200, {1, 3, 9, 0}},
    {20, 20, 7, 77, {1, 9, 27, 0}},
    {20, 1, 7, 1000, {1, 1, 3, 0}},
    {17, 19, 1, 130, {}},
    {64, 33, 7, 50, {1, 1, 3, 0}},
    {12, 16, 3, 9, {1, 2, 0, 0}},
    {300, 40, 7, 300, {1, 9, 27, 0}},
};

inline const Shape1d kTransposed[] = {
    {1, 1, 1, 1, {}},
    {6, 4, 16, 1, {8, 1, 4, 0}},
    {24, 12, 16, 33, {8, 1, 4, 0}},
    {12, 7, 10, 50, {5, 1, 3, 1}},
    {40, 20, 8, 100, {4, 1, 2, 0}},
    {20, 10, 4, 140, {2, 1, 1, 0}},
    {10, 5, 6, 200, {3, 1, 2, 1}},
    {5, 3, 7, 30, {3, 1, 1, 2}},
    {5, 3, 2, 30, {3, 1, 0, 0}},
    {4, 9, 5, 41, {1, 1, 2, 0}},
};

inline std::int64_t conv_times(const Shape1d& s) {
  return s.times + 2 * s.conv.padding - s.conv.dilation * (s.taps - 1);
}
inline std::int64_t transposed_times(const Shape1d& s) {
  return (s.times - 1) * s.conv.stride - 2 * s.conv.padding + s.taps + s.conv.output_padding;
}

// Columns [begin, begin + count) of x [channels, times].
inline Tensor window(const TensorView& x, std::int64_t begin, std::int64_t count) {
  Tensor part(cpu(), DType::kF32, {x.dim(0), count});
  for (std::int64_t c = 0; c < x.dim(0); ++c) {
    std::copy_n(x.as<float>() + c * x.dim(1) + begin, count, part.as<float>() + c * count);
  }
  return part;
}

}  // namespace higgs_rt::testing
