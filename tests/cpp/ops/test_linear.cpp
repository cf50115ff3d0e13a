#include "ops_test.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

std::vector<double> reference(const TensorView& x, const TensorView& weight) {
  const std::int64_t rows = x.dim(0), inputs = x.dim(1), outputs = weight.dim(0);
  std::vector<double> out;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t o = 0; o < outputs; ++o) {
      double sum = 0.0;
      for (std::int64_t i = 0; i < inputs; ++i) {
        sum += element(x, r * inputs + i) * element(weight, o * inputs + i);
      }
      out.push_back(sum);
    }
  }
  return out;
}

struct Size {
  std::int64_t rows, inputs, outputs;
};

const Size kSizes[] = {{1, 1, 1},     {1, 16, 8},   {1, 17, 9},    {2, 31, 13},  {3, 64, 5},
                       {5, 100, 12},  {6, 48, 33},  {7, 200, 64},  {13, 77, 31}, {37, 129, 40},
                       {64, 96, 100}, {70, 33, 17}, {8, 3000, 260}};

}  // namespace

TEST("linear agrees with a double-precision product on every instruction set") {
  for (const char* isa : isas()) {
    CpuBackend ops(2, isa);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const Size& s : kSizes) {
        const Tensor x = random_tensor({s.rows, s.inputs});
        const Tensor weight = random_tensor({s.outputs, s.inputs}, dtype);
        const Tensor out = zeros({s.rows, s.outputs});
        ops->linear(x, weight, out);
        const std::vector<double> expected = reference(x, weight);
        EXPECT(max_error(out, expected) < 3e-6 * static_cast<double>(s.inputs));
      }
    }
  }
}

TEST("the reference kernels round a product once") {
  CpuBackend ops(2, "reference");
  const Tensor x = random_tensor({5, 3000});
  const Tensor weight = random_tensor({33, 3000}, DType::kBF16);
  const Tensor out = zeros({5, 33});
  ops->linear(x, weight, out);
  const std::vector<double> expected = reference(x, weight);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double half_ulp = std::ldexp(1.0, std::ilogb(expected[i]) - 24);
    EXPECT(std::abs(out.as<float>()[i] - expected[i]) <= half_ulp * 1.001);
  }
}

TEST("linear adds to its output when it accumulates") {
  CpuBackend ops;
  const Tensor x = random_tensor({7, 50}), weight = random_tensor({21, 50});
  const Tensor fresh = zeros({7, 21}), out = random_tensor({7, 21});
  const Tensor before = copy_of(out);
  ops->linear(x, weight, fresh);
  ops->linear(x, weight, out, true);
  for (std::int64_t i = 0; i < 7 * 21; ++i) {
    EXPECT_EQ(out.as<float>()[i], before.as<float>()[i] + fresh.as<float>()[i]);
  }
}

TEST("linear gives a row the same bits alone, at any place and in any batch") {
  for (const char* isa : isas()) {
    CpuBackend ops(2, isa);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor weight = random_tensor({101, 1021}, dtype);
      const Tensor x = random_tensor({37, 1021});
      const Tensor all = zeros({37, 101});
      ops->linear(x, weight, all);
      for (std::int64_t begin = 0; begin < 37; ++begin) {
        for (const std::int64_t count : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 20}) {
          if (begin + count > 37) continue;
          const Tensor part = zeros({count, 101});
          ops->linear(x.view().slice(begin, count), weight, part);
          EXPECT(same_bits(part, all.view().slice(begin, count)));
        }
      }
    }
  }
}

TEST("linear gives the same bits for any number of threads") {
  const Tensor x = random_tensor({9, 700}), weight = random_tensor({500, 700}, DType::kBF16);
  const Tensor one = zeros({9, 500});
  CpuBackend single(1);
  single->linear(x, weight, one);
  for (const int threads : {2, 3}) {
    CpuBackend ops(threads);
    const Tensor out = zeros({9, 500});
    ops->linear(x, weight, out);
    EXPECT(same_bits(out, one));
  }
}

// Kernel tables that read packed weights.
std::vector<const char*> packing_isas() {
  std::vector<const char*> found = isas();
  std::erase_if(found, [](const char* isa) { return std::string(isa) == "reference"; });
  return found;
}

TEST("packed weights agree with a double-precision product on every instruction set") {
  for (const char* isa : packing_isas()) {
    CpuBackend ops(2, isa);
    for (const Size& s : kSizes) {
      for (const std::int64_t inputs : {s.inputs + s.inputs % 2, std::int64_t{256}}) {
        if (inputs > 2048) continue;
        const Tensor x = random_tensor({s.rows, inputs});
        const Tensor weight = random_tensor({s.outputs, inputs}, DType::kBF16);
        const Tensor packed = ops->pack(weight);
        const Tensor out = zeros({s.rows, s.outputs}), sum = random_tensor({s.rows, s.outputs});
        const Tensor before = copy_of(sum);
        ops->linear(x, packed, out);
        EXPECT(max_error(out, reference(x, weight)) < 3e-6 * static_cast<double>(inputs));
        ops->linear(x, packed, sum, true);
        bool added = true;
        for (std::int64_t i = 0; i < out.view().size(); ++i) {
          added = added && sum.as<float>()[i] == before.as<float>()[i] + out.as<float>()[i];
        }
        EXPECT(added);
      }
    }
  }
}

TEST("packed weights give a row the same bits in any batch and for any number of threads") {
  for (const char* isa : packing_isas()) {
    CpuBackend ops(2, isa), single(1, isa), three(3, isa);
    const Tensor weight = random_tensor({213, 640}, DType::kBF16), x = random_tensor({37, 640});
    const Tensor packed = ops->pack(weight), all = zeros({37, 213});
    ops->linear(x, packed, all);
    for (CpuBackend* other : {&single, &three}) {
      const Tensor out = zeros({37, 213});
      (*other)->linear(x, packed, out);
      EXPECT(same_bits(out, all));
    }
    for (std::int64_t begin = 0; begin < 37; ++begin) {
      for (const std::int64_t count : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 20}) {
        if (begin + count > 37) continue;
        const Tensor part = zeros({count, 213});
        ops->linear(x.view().slice(begin, count), packed, part);
        EXPECT(same_bits(part, all.view().slice(begin, count)));
      }
    }
  }
}

TEST("only weights that are read faster in panels are packed") {
  CpuBackend ops;
  EXPECT(!ops->pack(zeros({64, 64})).view());                    // fp32
  EXPECT(!ops->pack(zeros({64, 63}, DType::kBF16)).view());      // pairs of inputs
  EXPECT(!ops->pack(zeros({64, 2050}, DType::kBF16)).view());    // too long a chain
  EXPECT(!ops->pack(zeros({4096, 1024}, DType::kBF16)).view());  // from main memory anyway
  EXPECT(ops->pack(zeros({2048, 1024}, DType::kBF16)).view());
  CpuBackend plain(1, "reference");
  EXPECT(!plain->pack(zeros({64, 64}, DType::kBF16)).view());
  const Tensor packed = ops->pack(zeros({64, 64}, DType::kBF16));
  EXPECT_THROWS(plain->linear(zeros({2, 64}), packed, zeros({2, 64})), "another's");
  EXPECT_THROWS(ops->linear(zeros({2, 64}), packed, zeros({2, 65})), "[linear] packed weight");
  EXPECT_THROWS(ops->linear(zeros({2, 62}), packed, zeros({2, 64})), "[linear] packed weight");
}

TEST("linear names the tensor that does not fit") {
  CpuBackend ops;
  const Tensor x = zeros({2, 8}), weight = zeros({4, 9}), out = zeros({2, 4});
  EXPECT_THROWS(ops->linear(x, weight, out),
                "[linear] weight: expected f32 or bf16 [4, 8], got f32 [4, 9]");
  EXPECT_THROWS(ops->linear(x, zeros({4, 8}), zeros({3, 4})),
                "[linear] out: expected f32 [2, 4], got f32 [3, 4]");
  EXPECT_THROWS(ops->linear(zeros({2, 8}, DType::kI32), zeros({4, 8}), out), "[linear] x");
  EXPECT_THROWS(ops->linear(zeros({8}), zeros({4, 8}), out),
                "[linear] x: expected 2 axes, got [8]");
}
