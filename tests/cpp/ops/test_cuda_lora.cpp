// add_lora on the GPU against double precision. Needs a build with CUDA and a GPU.
#include "cuda_backend.h"
#include "few.h"
#include "lora_cases.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

// What the GPU makes of rows [begin, begin + count) by themselves.
std::vector<Tensor> run(CudaBackend& gpu, const LoraData& data, std::int64_t begin,
                        std::int64_t count) {
  std::vector<Tensor> a, b, outs, got;
  std::int64_t rank = 8;
  for (std::size_t p = 0; p < data.a.size(); ++p) {
    const bool any = bool{data.a[p].view()};
    if (any) rank = data.a[p].view().dim(1);
    a.push_back(any ? gpu.put(data.a[p]) : Tensor());
    b.push_back(any ? gpu.put(data.b[p]) : Tensor());
    outs.push_back(gpu.put(data.outs[p].view().slice(begin, count)));
  }
  const Tensor x = gpu.put(data.x.view().slice(begin, count)), scale = gpu.put(data.scale);
  const Tensor adapter = gpu.put(data.adapter.view().slice(begin, count));
  const Tensor work = gpu.poisoned({static_cast<std::int64_t>(a.size()), count, rank}, DType::kF32);
  gpu->add_lora(x, weights_of(a, b), {adapter, scale, work}, views_of(outs));
  for (const Tensor& out : outs) got.push_back(gpu.get(out));
  return got;
}

Tensor tensor_of(const std::vector<double>& values, const Shape& shape) {
  const Tensor tensor = zeros(shape);
  std::copy(values.begin(), values.end(), tensor.as<float>());
  return tensor;
}

const std::vector<LoraCase> kCases = {{1, 64, 8, 1, {64}},
                                      {5, 33, 8, 3, {9, 4, 4}},
                                      {16, 3072, 16, 2, {3072, 1024, 1024}},
                                      {37, 100, 16, 2, {40, 0, 13}},
                                      {131, 512, 24, 4, {200, 65}},
                                      {300, 8192, 16, 3, {3072}}};

}  // namespace

TEST("cuda add_lora is the double-precision product within rounding") {
  CudaBackend gpu;
  for (const DType dtype : kActivationTypes) {
    for (const DType out_dtype : {DType::kF32, dtype}) {
      for (const LoraCase& c : all_or_few(kCases, {kCases[1], {260, 33, 8, 3, {9}}})) {
        const LoraData data(c, dtype, out_dtype);
        const std::vector<Tensor> outs = run(gpu, data, 0, c.rows);
        for (std::size_t p = 0; p < outs.size(); ++p) {
          if (c.outputs[p] == 0) {
            EXPECT(same_bits(outs[p], data.outs[p]));
            continue;
          }
          const Tensor expected = tensor_of(data.expected(p), outs[p].view().shape);
          EXPECT(relative_error(outs[p], expected) < tolerance(out_dtype));
        }
      }
    }
  }
}

TEST("cuda add_lora gives a row the same bits alone, in any batch, and none without an adapter") {
  CudaBackend gpu;
  for (const DType dtype : kActivationTypes) {
    // More than one row a block from 257 rows on.
    const LoraData data({300, 512, 16, 3, {96, 40}}, dtype, dtype);
    const std::vector<Tensor> all = run(gpu, data, 0, 300);
    int without = 0;
    for (std::int64_t row = 0; row < 300; ++row) {
      if (data.chosen(row) >= 0) continue;
      ++without;
      EXPECT(same_bits(all[0].view().slice(row, 1), data.outs[0].view().slice(row, 1)));
    }
    EXPECT(without > 0 && without < 300);
    for (const std::int64_t begin : all_or_few<std::int64_t>({0, 1, 7, 30, 77}, {7})) {
      for (const std::int64_t count : all_or_few<std::int64_t>({1, 2, 16, 64, 65, 73}, {3})) {
        const std::vector<Tensor> part = run(gpu, data, begin, count);
        for (std::size_t p = 0; p < part.size(); ++p) {
          EXPECT(same_bits(part[p], all[p].view().slice(begin, count)));
        }
      }
    }
  }
}

TEST("cuda add_lora refuses other shapes and types") {
  CudaBackend gpu;
  const Tensor x = gpu.put(zeros({2, 16})), a = gpu.put(zeros({1, 8, 16}));
  const Tensor b = gpu.put(zeros({1, 4, 8})), out = gpu.put(zeros({2, 4}));
  const Tensor adapter = gpu.put(zeros({2}, DType::kI32)), scale = gpu.put(zeros({1}));
  const Tensor work = gpu.put(zeros({16}));
  const auto refused = [&](const Ops::Lora& weight, const TensorView& memory,
                           const std::string& part) {
    const TensorView view = out;
    EXPECT_THROWS(gpu->add_lora(x, {&weight, 1}, {adapter, scale, memory}, {&view, 1}), part);
  };
  refused({gpu.put(zeros({1, 7, 16})), b}, work, "[add_lora] a: expected a rank");
  refused({a, gpu.put(zeros({1, 4, 8}, DType::kBF16))}, work, "[add_lora] b: expected f32");
  refused({a, b}, gpu.put(zeros({15})), "[add_lora] work: expected at least 16");
}
