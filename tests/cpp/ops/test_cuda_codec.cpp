// The codec's operations on the GPU against the CPU's. Needs a build with CUDA and a GPU.
#include "codec_cases.h"
#include "cuda_backend.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

// Beside kConvs and kTransposed: widths with kernels of their own.
const Shape1d kWideConv = {256, 1024, 7, 36, {1, 1, 3, 0}};
const Shape1d kNarrowConv = {32, 1, 7, 1000, {1, 1, 3, 0}};
const Shape1d kWideTransposed = {1024, 512, 16, 18, {8, 1, 4, 0}};

template <std::size_t N>
std::vector<Shape1d> with(const Shape1d (&cases)[N], std::initializer_list<Shape1d> more) {
  std::vector<Shape1d> all(cases, cases + N);
  all.insert(all.end(), more);
  return all;
}

double largest_difference(const TensorView& a, const TensorView& b) {
  std::vector<double> expected;
  for (std::int64_t i = 0; i < b.size(); ++i) expected.push_back(element(b, i));
  return max_error(a, expected);
}

// Sums of n products of normal numbers in another order.
double tolerance(std::int64_t products) { return 1e-6 * static_cast<double>(8 + products); }

}  // namespace

TEST("cuda codec: conv1d agrees with the CPU's, with and without residual") {
  CudaBackend gpu;
  CpuBackend reference;
  for (const Shape1d& s : with(kConvs, {kWideConv, kNarrowConv})) {
    const std::int64_t times = conv_times(s);
    const Tensor x = random_tensor({s.channels, s.times}), bias = random_tensor({s.outputs});
    const Tensor weight = random_tensor({s.outputs, s.channels, s.taps});
    const Tensor residual = random_tensor({s.outputs, times}), expected = zeros({s.outputs, times});
    reference->conv1d(x, weight, bias, s.conv, nullptr, expected);
    const Tensor out = gpu.poisoned({s.outputs, times}, DType::kF32);
    const Tensor gx = gpu.put(x), gw = gpu.put(weight), gb = gpu.put(bias);
    gpu->conv1d(gx, gw, gb, s.conv, nullptr, out);
    EXPECT(largest_difference(gpu.get(out), expected) < tolerance(s.channels * s.taps));

    reference->conv1d(x, weight, bias, s.conv, &residual.view(), expected);
    const Tensor in_place = gpu.put(residual);
    gpu->conv1d(gx, gw, gb, s.conv, &in_place.view(), in_place);
    EXPECT(largest_difference(gpu.get(in_place), expected) < tolerance(s.channels * s.taps));
  }
}

TEST("cuda codec: conv_transpose1d agrees with the CPU's") {
  CudaBackend gpu;
  CpuBackend reference;
  for (const Shape1d& s : with(kTransposed, {kWideTransposed})) {
    const std::int64_t times = transposed_times(s);
    const Tensor x = random_tensor({s.channels, s.times}), bias = random_tensor({s.outputs});
    const Tensor weight = random_tensor({s.channels, s.outputs, s.taps});
    const Tensor expected = zeros({s.outputs, times}),
                 out = gpu.poisoned({s.outputs, times}, DType::kF32);
    reference->conv_transpose1d(x, weight, bias, s.conv, expected);
    gpu->conv_transpose1d(gpu.put(x), gpu.put(weight), gpu.put(bias), s.conv, out);
    EXPECT(largest_difference(gpu.get(out), expected) < tolerance(s.channels * s.taps));
  }
}

TEST("cuda codec: a chunk with enough context gives the bits of the whole convolution") {
  CudaBackend gpu;
  const Tensor x = random_tensor({20, 400}), bias = gpu.put(random_tensor({12}));
  const Tensor weight = gpu.put(random_tensor({12, 20, 7}));
  const Ops::Conv1d same{1, 3, 9, 0};
  const Tensor whole = gpu.poisoned({12, 400}, DType::kF32);
  gpu->conv1d(gpu.put(x), weight, bias, same, nullptr, whole);
  for (const std::int64_t begin : {0, 13, 333}) {
    for (const std::int64_t count : {1, 16, 67}) {
      const std::int64_t low = std::max<std::int64_t>(0, begin - 9);
      const std::int64_t high = std::min<std::int64_t>(400, begin + count + 9);
      const Tensor out = gpu.poisoned({12, high - low}, DType::kF32);
      gpu->conv1d(gpu.put(window(x, low, high - low)), weight, bias, same, nullptr, out);
      EXPECT(same_bits(window(gpu.get(out), begin - low, count),
                       window(gpu.get(whole), begin, count)));
    }
  }
}

TEST("cuda codec: snake agrees with its formula, in place too") {
  CudaBackend gpu;
  CpuBackend reference;
  for (const float range : {1.0f, 30.0f, 3000.0f}) {
    const Tensor x = random_tensor({4, 1001}, DType::kF32, range), expected = zeros({4, 1001});
    const Tensor alpha = random_tensor({4});
    const Tensor gx = gpu.put(x), galpha = gpu.put(alpha),
                 out = gpu.poisoned({4, 1001}, DType::kF32);
    reference->snake(x, alpha, expected);
    gpu->snake(gx, galpha, out);
    const Tensor result = gpu.get(out);
    for (std::int64_t i = 0; i < 4 * 1001; ++i) {
      const double a = std::abs(element(alpha, i / 1001));
      EXPECT_NEAR(result.as<float>()[i], expected.as<float>()[i],
                  3e-6 / a + 3e-7 * std::abs(element(expected, i)));
    }
    gpu->snake(gx, galpha, gx);
    EXPECT(same_bits(gpu.get(gx), result));
  }
}

TEST("cuda codec: sum_code_tables and crop agree with the CPU's") {
  CudaBackend gpu;
  CpuBackend reference;
  const Tensor tables = random_tensor({8, 11, 19}), bias = random_tensor({19});
  std::vector<std::int32_t> ids;
  for (int i = 0; i < 8 * 23; ++i) ids.push_back(uniform(0, 10));
  const Tensor codes = integers(ids, {8, 23}), expected = zeros({19, 23});
  reference->sum_code_tables(tables, bias, codes, expected);
  const Tensor out = gpu.poisoned({19, 23}, DType::kF32);
  gpu->sum_code_tables(gpu.put(tables), gpu.put(bias), gpu.put(codes), out);
  EXPECT(largest_difference(gpu.get(out), expected) < 3e-6);

  const Tensor kept = gpu.poisoned({19, 7}, DType::kF32);
  gpu->crop(out, 16, kept);
  EXPECT(same_bits(gpu.get(kept), window(gpu.get(out), 16, 7)));
  EXPECT_THROWS(gpu->crop(out, 17, kept), "[crop] begin: expected 0..16, got 17");
}

TEST("cuda codec: operations name what does not fit") {
  CudaBackend gpu;
  const auto zero = [&](Shape shape) { return gpu.put(zeros(std::move(shape))); };
  const Tensor x = zero({2, 9}), weight = zero({3, 2, 7}), bias = zero({3});
  EXPECT_THROWS(gpu->conv1d(x, weight, bias, {1, 1, 3, 0}, nullptr, zero({3, 8})),
                "[conv1d] out: expected f32 [3, 9], got f32 [3, 8]");
  EXPECT_THROWS(gpu->conv1d(x, weight, bias, {1, 9, 3, 0}, nullptr, zero({3, 9})),
                "at least one channel, tap and output sample");
  EXPECT_THROWS(gpu->conv_transpose1d(x, weight, bias, {2, 1, 0, 0}, zero({3, 9})),
                "[conv_transpose1d] weight: expected f32 [2, 2, 7], got f32 [3, 2, 7]");
}
