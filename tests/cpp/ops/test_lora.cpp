#include "lora_cases.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

const LoraCase kCases[] = {{1, 16, 8, 1, {8}},
                           {5, 33, 8, 3, {9, 4, 4}},
                           {37, 100, 16, 2, {40, 0, 13}},
                           {70, 257, 24, 5, {64, 65}}};

// Rows [begin, begin + count) of `data` by themselves; the outputs of each weight.
std::vector<Tensor> run(CpuBackend& ops, const LoraData& data, std::int64_t begin,
                        std::int64_t count) {
  std::vector<Tensor> outs;
  std::int64_t rank = 8;
  for (std::size_t p = 0; p < data.a.size(); ++p) {
    outs.push_back(copy_of(data.outs[p].view().slice(begin, count)));
    if (data.a[p].view()) rank = data.a[p].view().dim(1);
  }
  const Tensor work = zeros({3, count, rank});
  ops->add_lora(data.x.view().slice(begin, count), weights_of(data.a, data.b),
                {data.adapter.view().slice(begin, count), data.scale, work}, views_of(outs));
  return outs;
}

}  // namespace

TEST("add_lora adds what a double-precision product does, on every instruction set") {
  for (const char* isa : isas()) {
    CpuBackend ops(2, isa);
    for (const LoraCase& c : kCases) {
      const LoraData data(c, DType::kF32, DType::kF32);
      const std::vector<Tensor> outs = run(ops, data, 0, c.rows);
      for (std::size_t p = 0; p < outs.size(); ++p) {
        if (c.outputs[p] == 0) {
          EXPECT(same_bits(outs[p], data.outs[p]));
        } else {
          EXPECT(max_error(outs[p], data.expected(p)) < 1e-4);
        }
      }
    }
  }
}

TEST("add_lora leaves rows without an adapter as they are") {
  CpuBackend ops;
  const LoraData data(kCases[3], DType::kF32, DType::kF32);
  const std::vector<Tensor> outs = run(ops, data, 0, 70);
  int without = 0;
  for (std::int64_t row = 0; row < 70; ++row) {
    for (std::size_t p = 0; p < outs.size(); ++p) {
      const bool same = same_bits(outs[p].view().slice(row, 1), data.outs[p].view().slice(row, 1));
      EXPECT_EQ(same, data.chosen(row) < 0);
    }
    without += data.chosen(row) < 0 ? 1 : 0;
  }
  EXPECT(without > 0 && without < 70);
}

TEST("add_lora gives a row the same bits alone, in any batch and for any number of threads") {
  for (const char* isa : isas()) {
    CpuBackend ops(2, isa), single(1, isa), three(3, isa);
    const LoraData data({61, 300, 16, 4, {90, 200}}, DType::kF32, DType::kF32);
    const std::vector<Tensor> all = run(ops, data, 0, 61);
    for (CpuBackend* other : {&single, &three}) {
      const std::vector<Tensor> outs = run(*other, data, 0, 61);
      for (std::size_t p = 0; p < outs.size(); ++p) EXPECT(same_bits(outs[p], all[p]));
    }
    for (std::int64_t begin = 0; begin < 61; ++begin) {
      for (const std::int64_t count : {1, 2, 5, 20}) {
        if (begin + count > 61) continue;
        const std::vector<Tensor> outs = run(ops, data, begin, count);
        for (std::size_t p = 0; p < outs.size(); ++p) {
          EXPECT(same_bits(outs[p], all[p].view().slice(begin, count)));
        }
      }
    }
  }
}

TEST("add_lora gives the same numbers when zeros fill the rank up") {
  CpuBackend ops;
  const LoraCase narrow{9, 64, 8, 2, {32}};
  const LoraData data(narrow, DType::kF32, DType::kF32);
  LoraData wide(data);
  wide.a[0] = zeros({2, 24, 64}), wide.b[0] = zeros({2, 32, 24});
  for (std::int64_t n = 0; n < 2; ++n) {
    std::copy_n(data.a[0].as<float>() + n * 8 * 64, 8 * 64, wide.a[0].as<float>() + n * 24 * 64);
    for (std::int64_t o = 0; o < 32; ++o) {
      std::copy_n(data.b[0].as<float>() + (n * 32 + o) * 8, 8,
                  wide.b[0].as<float>() + (n * 32 + o) * 24);
    }
  }
  const std::vector<Tensor> expected = run(ops, data, 0, 9), got = run(ops, wide, 0, 9);
  std::vector<double> numbers;
  for (int i = 0; i < 9 * 32; ++i) numbers.push_back(expected[0].as<float>()[i]);
  EXPECT(max_error(got[0], numbers) < 1e-6);
}

TEST("add_lora names the tensor that does not fit") {
  CpuBackend ops;
  const LoraData data({4, 16, 8, 2, {6}}, DType::kF32, DType::kF32);
  const Tensor work = zeros({4, 8});
  const Ops::LoraRows rows{data.adapter, data.scale, work};
  const auto refused = [&](const Ops::Lora& weight, const Ops::LoraRows& with, const Tensor& out,
                           const std::string& part) {
    const TensorView view = out;
    EXPECT_THROWS(ops->add_lora(data.x, {&weight, 1}, with, {&view, 1}), part);
  };
  const Ops::Lora good{data.a[0], data.b[0]};
  refused({zeros({2, 8, 17}), data.b[0]}, rows, data.outs[0],
          "[add_lora] a: expected f32 [2, 8, 16]");
  refused({data.a[0], zeros({2, 7, 8})}, rows, data.outs[0],
          "[add_lora] b: expected f32 [2, 6, 8]");
  refused(good, rows, zeros({3, 6}), "[add_lora] out: expected f32 [4, 6]");
  refused(good, {zeros({3}, DType::kI32), data.scale, work}, data.outs[0], "[add_lora] adapter");
  refused(good, {data.adapter, data.scale, zeros({31})}, data.outs[0],
          "[add_lora] work: expected at least 32 numbers, got 31");
  EXPECT_THROWS(ops->add_lora(data.x, {&good, 1}, rows, {}), "[add_lora] outs: expected 1");
}
