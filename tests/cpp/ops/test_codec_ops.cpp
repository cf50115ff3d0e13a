// Operations of the codec decoder: convolutions, snake, code tables.
#include "codec_cases.h"
#include "ops_test.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

std::vector<double> conv_reference(const Shape1d& s, const TensorView& x, const TensorView& w,
                                   const TensorView& bias) {
  std::vector<double> out;
  for (std::int64_t o = 0; o < s.outputs; ++o) {
    for (std::int64_t t = 0; t < conv_times(s); ++t) {
      double sum = element(bias, o);
      for (std::int64_t c = 0; c < s.channels; ++c) {
        for (std::int64_t k = 0; k < s.taps; ++k) {
          const std::int64_t at = t + k * s.conv.dilation - s.conv.padding;
          if (at < 0 || at >= s.times) continue;
          sum += element(w, (o * s.channels + c) * s.taps + k) * element(x, c * s.times + at);
        }
      }
      out.push_back(sum);
    }
  }
  return out;
}

std::vector<double> transposed_reference(const Shape1d& s, const TensorView& x, const TensorView& w,
                                         const TensorView& bias) {
  const std::int64_t out_times = transposed_times(s);
  std::vector<double> out;
  for (std::int64_t o = 0; o < s.outputs; ++o) {
    out.insert(out.end(), static_cast<std::size_t>(out_times), element(bias, o));
    double* row = out.data() + o * out_times;
    for (std::int64_t c = 0; c < s.channels; ++c) {
      for (std::int64_t t = 0; t < s.times; ++t) {
        for (std::int64_t k = 0; k < s.taps; ++k) {
          const std::int64_t at = t * s.conv.stride + k - s.conv.padding;
          if (at < 0 || at >= out_times) continue;
          row[at] += element(w, (c * s.outputs + o) * s.taps + k) * element(x, c * s.times + t);
        }
      }
    }
  }
  return out;
}

// x [C, T] -> its times [begin, begin + count).
}  // namespace

TEST("conv1d agrees with its definition, with and without residual") {
  for (const char* isa : isas()) {
    CpuBackend ops(2, isa);
    for (const Shape1d& s : kConvs) {
      const Tensor x = random_tensor({s.channels, s.times}), bias = random_tensor({s.outputs});
      const Tensor weight = random_tensor({s.outputs, s.channels, s.taps});
      const Tensor out = zeros({s.outputs, conv_times(s)});
      ops->conv1d(x, weight, bias, s.conv, nullptr, out);
      std::vector<double> expected = conv_reference(s, x, weight, bias);
      EXPECT(max_error(out, expected) < 1e-6 * static_cast<double>(8 + s.channels * s.taps));

      const Tensor residual = random_tensor({s.outputs, conv_times(s)});
      const Tensor plain = copy_of(out);
      ops->conv1d(x, weight, bias, s.conv, &residual.view(), out);
      bool same = true;
      for (std::int64_t i = 0; i < out.view().size(); ++i) {
        same = same && out.as<float>()[i] == plain.as<float>()[i] + residual.as<float>()[i];
      }
      EXPECT(same);
      ops->conv1d(x, weight, bias, s.conv, &residual.view(), residual);
      EXPECT(same_bits(residual, out));
    }
  }
}

TEST("conv_transpose1d agrees with its definition") {
  for (const char* isa : isas()) {
    CpuBackend ops(2, isa);
    for (const Shape1d& s : kTransposed) {
      const Tensor x = random_tensor({s.channels, s.times}), bias = random_tensor({s.outputs});
      const Tensor weight = random_tensor({s.channels, s.outputs, s.taps});
      const Tensor out = zeros({s.outputs, transposed_times(s)});
      ops->conv_transpose1d(x, weight, bias, s.conv, out);
      EXPECT(max_error(out, transposed_reference(s, x, weight, bias)) <
             1e-6 * static_cast<double>(8 + s.channels * s.taps));
    }
  }
}

TEST("conv_transpose1d gives the same bits over packed weights") {
  for (const char* isa : isas()) {
    for (const int threads : {1, 3}) {
      CpuBackend ops(threads, isa);
      for (std::int64_t stride = 1; stride <= 9; ++stride) {
        for (const std::int64_t times : {1, 5, 53, 130, 700}) {
          const Shape1d s{13, 12, 2 * stride, times, {stride, 1, (stride + 1) / 2, stride % 2}};
          const Tensor x = random_tensor({s.channels, s.times}), bias = random_tensor({s.outputs});
          const Tensor weight = random_tensor({s.channels, s.outputs, s.taps});
          const Tensor packed = ops->pack_transposed(weight, stride);
          EXPECT(bool{packed.view()} ==
                 (stride > 1 && stride < 9 && std::string(isa) != "reference"));
          if (!packed.view()) continue;
          const Tensor out = zeros({s.outputs, transposed_times(s)}), expected = copy_of(out);
          ops->conv_transpose1d(x, weight, bias, s.conv, expected);
          ops->conv_transpose1d(x, packed, bias, s.conv, out);
          EXPECT(same_bits(out, expected));
        }
      }
      EXPECT(!ops->pack_transposed(zeros({3, 4, 7}), 3).view());  // a phase would lack a tap
      EXPECT(!ops->pack_transposed(zeros({3, 3, 4}), 2).view());  // a tile would lack an output
    }
  }
}

TEST("a chunk with enough context gives the bits of the whole convolution") {
  for (const char* isa : isas()) {
    CpuBackend ops(2, isa);
    const Tensor x = random_tensor({20, 400}), bias = random_tensor({12});
    const Tensor weight = random_tensor({12, 20, 7});
    const Ops::Conv1d same{1, 3, 9, 0};
    const Tensor whole = zeros({12, 400});
    ops->conv1d(x, weight, bias, same, nullptr, whole);
    for (const std::int64_t begin : {0, 1, 13, 100, 333}) {
      for (const std::int64_t count : {1, 16, 47, 67}) {
        const std::int64_t low = std::max<std::int64_t>(0, begin - 9);
        const std::int64_t high = std::min<std::int64_t>(400, begin + count + 9);
        const Tensor out = zeros({12, high - low});
        ops->conv1d(window(x, low, high - low), weight, bias, same, nullptr, out);
        EXPECT(same_bits(window(out, begin - low, count), window(whole, begin, count)));
      }
    }
  }
}

TEST("a chunk with enough context gives the bits of the whole transposed convolution") {
  for (const char* isa : isas()) {
    CpuBackend ops(2, isa);
    const Tensor x = random_tensor({30, 150}), bias = random_tensor({7});
    const Tensor weight = random_tensor({30, 7, 10});
    const Ops::Conv1d up{5, 1, 3, 1};
    const Tensor whole = zeros({7, 750});
    ops->conv_transpose1d(x, weight, bias, up, whole);
    for (const std::int64_t begin : {0, 1, 13, 99}) {
      for (const std::int64_t count : {1, 8, 16, 49}) {
        const std::int64_t low = std::max<std::int64_t>(0, begin - 2);
        const std::int64_t high = std::min<std::int64_t>(150, begin + count + 2);
        const Tensor out = zeros({7, 5 * (high - low)});
        ops->conv_transpose1d(window(x, low, high - low), weight, bias, up, out);
        EXPECT(same_bits(window(out, 5 * (begin - low), 5 * count),
                         window(whole, 5 * begin, 5 * count)));
      }
    }
  }
}

TEST("convolutions give the same bits for any number of threads") {
  const Tensor x = random_tensor({50, 900}), bias = random_tensor({41});
  const Tensor weight = random_tensor({41, 50, 7}), up = random_tensor({50, 41, 8});
  CpuBackend single(1);
  const Tensor one = zeros({41, 900}), one_up = zeros({41, 3600});
  single->conv1d(x, weight, bias, {1, 9, 27, 0}, nullptr, one);
  single->conv_transpose1d(x, up, bias, {4, 1, 2, 0}, one_up);
  for (const int threads : {2, 3}) {
    CpuBackend ops(threads);
    const Tensor out = zeros({41, 900}), out_up = zeros({41, 3600});
    ops->conv1d(x, weight, bias, {1, 9, 27, 0}, nullptr, out);
    ops->conv_transpose1d(x, up, bias, {4, 1, 2, 0}, out_up);
    EXPECT(same_bits(out, one));
    EXPECT(same_bits(out_up, one_up));
  }
}

TEST("convolutions name what does not fit") {
  CpuBackend ops;
  const Tensor x = zeros({2, 9}), weight = zeros({3, 2, 7}), bias = zeros({3});
  EXPECT_THROWS(ops->conv1d(x, weight, bias, {1, 1, 3, 0}, nullptr, zeros({3, 8})),
                "[conv1d] out: expected f32 [3, 9], got f32 [3, 8]");
  EXPECT_THROWS(ops->conv1d(x, weight, bias, {1, 9, 3, 0}, nullptr, zeros({3, 9})),
                "at least one channel, tap and output sample");
  EXPECT_THROWS(ops->conv1d(x, weight, zeros({2}), {1, 1, 3, 0}, nullptr, zeros({3, 9})),
                "[conv1d] bias: expected f32 [3], got f32 [2]");
  EXPECT_THROWS(ops->conv1d(x, weight, bias, {2, 1, 3, 0}, nullptr, zeros({3, 9})), "stride 1");
  EXPECT_THROWS(ops->conv_transpose1d(x, weight, bias, {2, 1, 0, 0}, zeros({3, 9})),
                "[conv_transpose1d] weight: expected f32 [2, 2, 7], got f32 [3, 2, 7]");
  const Tensor packed = ops->pack_transposed(zeros({2, 4, 4}), 2), four = zeros({4});
  if (!packed.view()) return;  // no kernels for it on this machine
  EXPECT_THROWS(ops->conv_transpose1d(x, packed, four, {3, 1, 0, 0}, zeros({4, 28})),
                "pack_transposed() for stride 3");
  EXPECT_THROWS(
      ops->conv_transpose1d(zeros({3, 9}), packed, four, {2, 1, 0, 0}, zeros({4, 20})),
      "[conv_transpose1d] packed weight: expected f32 [1, 3, 2, 8], got f32 [1, 2, 2, 8]");
}

TEST("snake agrees with its formula within 1e-6 up to 10,000 and with libm beyond") {
  for (const char* isa : isas()) {
    CpuBackend ops(2, isa);
    for (const float range : {1.0f, 30.0f, 3000.0f, 1e6f}) {
      const Tensor x = random_tensor({4, 1001}, DType::kF32, range), out = zeros({4, 1001});
      const Tensor alpha = zeros({4});
      const float alphas[] = {1.0f, 0.5f, 3.0f, -1.25f};
      std::copy(std::begin(alphas), std::end(alphas), alpha.as<float>());
      ops->snake(x, alpha, out);
      for (std::int64_t i = 0; i < 4 * 1001; ++i) {
        const float a = alphas[i / 1001], v = x.as<float>()[i];
        const double s = std::sin(static_cast<double>(a * v));  // the product rounds to fp32
        const double expected = v + s * s / (static_cast<double>(a) + 1e-9);
        EXPECT_NEAR(out.as<float>()[i], expected, 2.1e-6 + 1.2e-7 * std::abs(expected));
      }
      ops->snake(x, alpha, x);
      EXPECT(same_bits(x, out));
    }
  }
}

TEST("a residual unit has the bits of its four operations, however long and on any threads") {
  struct Size {
    std::int64_t channels, times, dilation;
  };
  for (const char* isa : isas()) {
    for (const int threads : {1, 2, 3}) {
      CpuBackend ops(threads, isa);
      for (const Size& s : {Size{3, 40, 1},
                            {8, 3001, 1},
                            {8, 4096, 9},
                            {16, 2100, 3},
                            {20, 5000, 9},
                            {5, 9000, 9},
                            {100, 1100, 9}}) {
        if (std::string(isa) == "reference" && s.channels > 10) continue;  // slow
        const Shape shape = {s.channels, s.times};
        const Tensor x = random_tensor(shape), work = zeros(shape), other = zeros(shape);
        const Tensor alpha1 = random_tensor({s.channels}), alpha2 = random_tensor({s.channels});
        const Tensor weight1 = random_tensor({s.channels, s.channels, 7}, DType::kF32, 0.1f);
        const Tensor weight2 = random_tensor({s.channels, s.channels, 1});
        const Tensor bias1 = random_tensor({s.channels}), bias2 = random_tensor({s.channels});
        const Ops::ResidualUnit unit{alpha1, weight1, bias1, s.dilation,
                                     alpha2, weight2, bias2, work};
        const Tensor out = zeros(shape), before = copy_of(x);
        ops->residual_unit(x, unit, out);
        ops.ops->Ops::residual_unit(x, unit, other);
        EXPECT(same_bits(out, other));
        EXPECT(same_bits(x, before));
      }
    }
  }
}

TEST("a residual unit names what does not fit") {
  CpuBackend ops;
  const Tensor x = zeros({4, 4000}), out = zeros({4, 4000}), four = zeros({4});
  const Tensor weight1 = zeros({4, 4, 7}), weight2 = zeros({4, 4, 1}), work = zeros({4, 4000});
  const auto run = [&](const Tensor& first, const Tensor& bias, const Tensor& to) {
    ops->residual_unit(x, {four, first, bias, 1, four, weight2, four, work}, to);
  };
  run(weight1, four, out);
  EXPECT_THROWS(run(weight1, four, zeros({4, 3999})), "[residual_unit] out");
  EXPECT_THROWS(run(zeros({4, 5, 7}), four, out), "[residual_unit] weight1");
  EXPECT_THROWS(run(weight1, zeros({5}), out), "[residual_unit] alpha and bias");
  EXPECT_THROWS(run(zeros({4, 4, 6}), four, out), "odd number of taps");
}

TEST("sum_code_tables adds one row of each table to the bias") {
  CpuBackend ops;
  const Tensor tables = random_tensor({8, 11, 19}), bias = random_tensor({19});
  const Tensor out = zeros({19, 23});
  std::vector<std::int32_t> codes;
  for (int i = 0; i < 8 * 23; ++i) codes.push_back(uniform(0, 10));
  ops->sum_code_tables(tables, bias, integers(codes, {8, 23}), out);
  for (std::int64_t d = 0; d < 19; ++d) {
    for (std::int64_t t = 0; t < 23; ++t) {
      double sum = element(bias, d);
      for (std::int64_t k = 0; k < 8; ++k) {
        sum += element(tables, (k * 11 + codes[static_cast<std::size_t>(k * 23 + t)]) * 19 + d);
      }
      EXPECT_NEAR(out.as<float>()[d * 23 + t], sum, 3e-6);
    }
  }
  codes[3] = 11;
  EXPECT_THROWS(ops->sum_code_tables(tables, bias, integers(codes, {8, 23}), out),
                "[sum_code_tables] codes: expected 0..10, got 11");
}

TEST("crop keeps a range of times of every channel") {
  CpuBackend ops;
  const Tensor x = random_tensor({3, 10});
  const Tensor out = zeros({3, 4});
  ops->crop(x, 5, out);
  for (std::int64_t c = 0; c < 3; ++c) {
    for (std::int64_t t = 0; t < 4; ++t) {
      EXPECT_EQ(out.as<float>()[c * 4 + t], x.as<float>()[c * 10 + 5 + t]);
    }
  }
  EXPECT_THROWS(ops->crop(x, 7, out), "[crop] begin: expected 0..6, got 7");
  EXPECT_THROWS(ops->crop(x, -1, out), "begin");
}
