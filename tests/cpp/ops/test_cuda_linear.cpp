// Matrix products and the decoder's stages on the GPU against the CPU's operations. Needs a build
// with CUDA and a GPU.
#include "few.h"
#include "qkv_case.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

std::vector<std::int64_t> row_counts() {
  return all_or_few<std::int64_t>({1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 64, 100, 300}, {1, 9, 33});
}

// Sums of normal numbers in fp32, in another order; with a normalised row rounded to bf16 once.
double product_tolerance(DType in, DType out) {
  return in == DType::kF32 ? 1e-5 : out == DType::kF32 ? 2e-5 : 3e-3;
}
// bf16: several roundings in a row, and the smallest cases have too few numbers to average them.
double stage_tolerance(DType dtype) { return dtype == DType::kF32 ? 2e-5 : 1e-2; }

// x and out [rows, .] on the GPU next to the same product on the CPU.
void compare_linear(CudaBackend& gpu, CpuBackend& host, const Tensor& weight, std::int64_t rows,
                    DType dtype) {
  const std::int64_t outputs = weight.view().dim(0), inputs = weight.view().dim(1);
  const Tensor x = random_tensor({rows, inputs}, dtype);
  const Tensor expected = zeros({rows, outputs}), wide = as_f32(x);
  host->linear(wide, weight, expected);
  const Tensor gpu_x = gpu.put(x), gpu_weight = gpu.put(weight);
  for (const DType out_dtype : {dtype, DType::kF32}) {
    const Tensor out = gpu.poisoned({rows, outputs}, out_dtype);
    gpu->linear(gpu_x, gpu_weight, out);
    const double error = relative_error(gpu.get(out), expected);
    if (!(error < product_tolerance(dtype, out_dtype))) {
      std::cerr << "rows " << rows << " weight " << to_string(weight.view().shape) << " error "
                << error << '\n';
    }
    EXPECT(error < product_tolerance(dtype, out_dtype));
  }
  const Tensor sum = random_tensor({rows, outputs}), gpu_sum = gpu.put(sum);
  host->linear(wide, weight, sum, true);
  gpu->linear(gpu_x, gpu_weight, gpu_sum, true);
  EXPECT(relative_error(gpu.get(gpu_sum), sum) < product_tolerance(dtype, DType::kF32));
}

struct FfnCase {
  std::int64_t rows, size, width;
  DType dtype;
  bool joined;  // gate and up one after another in memory
};

void compare_ffn(CudaBackend& gpu, CpuBackend& host, const FfnCase& c) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.size));
  const Tensor weight = random_tensor({2 * c.width, c.size}, c.dtype, scale);
  const Tensor x = random_tensor({c.rows, c.size}, DType::kF32, 3.0f);
  const Tensor norm = random_tensor({c.size}, c.dtype);
  const TensorView gate = weight.view().first(c.width);
  const TensorView up = weight.view().slice(c.width, c.width);
  const Tensor expected = zeros({c.rows, c.width}), normed = zeros({c.rows, c.size});
  const Tensor host_up = zeros({c.rows, c.width});
  host->ffn_input(x, {norm, 1e-5f, gate, up, normed, host_up}, expected);
  const Tensor one = gpu.put(weight), two = gpu.put(up), gpu_x = gpu.put(x);
  const Tensor gpu_norm = gpu.put(norm), out = gpu.poisoned({c.rows, c.width}, c.dtype);
  const Tensor gpu_normed = gpu.poisoned({c.rows, c.size}, c.dtype);
  const Tensor gpu_up = gpu.poisoned({c.rows, c.width}, c.dtype);
  gpu->ffn_input(gpu_x,
                 {gpu_norm, 1e-5f, one.view().first(c.width),
                  c.joined ? one.view().slice(c.width, c.width) : two.view(), gpu_normed, gpu_up},
                 out);
  const double error = relative_error(gpu.get(out), expected);
  if (!(error < stage_tolerance(c.dtype))) {
    std::cerr << "rows " << c.rows << " size " << c.size << " width " << c.width << " joined "
              << c.joined << " error " << error << '\n';
  }
  EXPECT(error < stage_tolerance(c.dtype));
}

void compare_qkv(CudaBackend& gpu, CpuBackend& host, const QkvCase& c) {
  const QkvData d = qkv_data(c), g = on_gpu(gpu, c, d);
  run_qkv(*host.ops, c, d);
  run_qkv(*gpu.ops, c, g);
  const double q = relative_error(gpu.get(g.q), d.q);
  const double k = relative_error(gpu.get(g.k_cache), d.k_cache);
  const double v = relative_error(gpu.get(g.v_cache), d.v_cache);
  const double worst = stage_tolerance(c.dtype);
  if (!(q < worst && k < worst && v < worst)) {
    std::cerr << "rows " << c.rows << " text " << c.text << " size " << c.size << " dim " << c.dim
              << " errors " << q << ' ' << k << ' ' << v << '\n';
  }
  EXPECT(q < worst);
  EXPECT(k < worst);
  EXPECT(v < worst);
}

}  // namespace

TEST("cuda linear is the CPU's within rounding, for every shape") {
  CudaBackend gpu;
  CpuBackend host(8);
  const std::vector<Shape> shapes = all_or_few<Shape>({{1, 1},
                                                       {7, 5},
                                                       {16, 32},
                                                       {40, 96},
                                                       {33, 64},
                                                       {130, 200},
                                                       {256, 128},
                                                       {70, 1030},
                                                       {264, 512},
                                                       {96, 2112},
                                                       {50, 6208},
                                                       {1000, 264}},
                                                      {{7, 5}, {33, 64}, {24, 200}, {20, 320}});
  for (const DType dtype : kActivationTypes) {
    for (const Shape& shape : shapes) {
      const Tensor weight = random_tensor(shape, dtype);
      for (const std::int64_t rows : row_counts()) compare_linear(gpu, host, weight, rows, dtype);
    }
  }
}

TEST("cuda linear at the shapes of the 3B model") {
  CudaBackend gpu;
  CpuBackend host(8);
  for (const Shape& shape :
       all_or_few<Shape>({{5120, 3072}, {3072, 8192}, {8208, 3072}}, {{512, 3072}})) {
    const Tensor weight = random_tensor(shape, DType::kBF16);
    for (const std::int64_t rows : all_or_few<std::int64_t>({1, 8, 13, 32, 48}, {1, 13})) {
      compare_linear(gpu, host, weight, rows, DType::kBF16);
    }
  }
}

TEST("cuda linear gives a row the same bits for every number of rows of its kernel") {
  CudaBackend gpu;
  for (const DType dtype : kActivationTypes) {
    const std::int64_t most = dtype == DType::kF32 ? 70 : 16;
    for (const Shape& shape :
         all_or_few<Shape>({{200, 320}, {96, 3072}, {40, 8192}}, {{200, 320}})) {
      const Tensor weight = gpu.put(random_tensor(shape, dtype));
      const Tensor x = gpu.put(random_tensor({most, shape[1]}, dtype));
      const Tensor all = gpu.poisoned({most, shape[0]}, DType::kF32);
      gpu->linear(x, weight, all);
      const Tensor expected = gpu.get(all);
      for (const std::int64_t rows : {1, 3, 8, 9, 16}) {
        const Tensor some = gpu.poisoned({rows, shape[0]}, DType::kF32);
        gpu->linear(x.view().slice(most - rows, rows), weight, some);
        EXPECT(same_bits(gpu.get(some), expected.view().slice(most - rows, rows)));
      }
    }
  }
}

TEST("cuda linear refuses what does not fit together") {
  CudaBackend gpu;
  const Tensor x = gpu.poisoned({2, 64}, DType::kBF16), w = gpu.poisoned({8, 32}, DType::kBF16);
  const Tensor out = gpu.poisoned({2, 8}, DType::kBF16);
  EXPECT_THROWS(gpu->linear(x, w, out), "weight: expected bf16 [8, 64], got bf16 [8, 32]");
  const Tensor fits = gpu.poisoned({8, 64}, DType::kBF16);
  EXPECT_THROWS(gpu->linear(x, fits, out, true), "out: expected f32 to add to, got bf16");
}

TEST("cuda ffn_input is the CPU's within rounding") {
  CudaBackend gpu;
  CpuBackend host(8);
  for (const DType dtype : kActivationTypes) {
    for (const std::int64_t rows : row_counts()) {
      compare_ffn(gpu, host, {rows, 128, 264, dtype, true});
      compare_ffn(gpu, host, {rows, 96, 36, dtype, true});
      compare_ffn(gpu, host, {rows, 544, 100, dtype, true});
      compare_ffn(gpu, host, {rows, 20, 7, dtype, true});
      compare_ffn(gpu, host, {rows, 128, 64, dtype, false});
    }
  }
  for (const std::int64_t rows : all_or_few<std::int64_t>({1, 16, 32, 48}, {1})) {
    compare_ffn(gpu, host, {rows, 3072, few_only() ? 512 : 8192, DType::kBF16, true});
  }
  compare_ffn(gpu, host, {1100, 128, 64, DType::kBF16, true});  // more than one pass
}

TEST("cuda attention_input is the CPU's within rounding, for every split of the rows") {
  CudaBackend gpu;
  CpuBackend host(8);
  for (const DType dtype : kActivationTypes) {
    for (const std::int64_t rows : row_counts()) {
      for (const std::int64_t text : {std::int64_t{0}, rows / 2, rows}) {
        compare_qkv(gpu, host, {rows, text, 128, 8, 2, 16, dtype});
      }
      compare_qkv(gpu, host, {rows, rows / 3, 64, 3, 1, 30, dtype});
      compare_qkv(gpu, host, {rows, 0, 40, 2, 2, 6, dtype});
    }
  }
  const std::int64_t heads = few_only() ? 3 : 24;
  for (const std::int64_t rows : all_or_few<std::int64_t>({1, 6, 16, 32, 48}, {6})) {
    compare_qkv(gpu, host, {rows, rows / 2, 3072, heads, heads / 3, 128, DType::kBF16});
  }
  compare_qkv(gpu, host, {390, 5, 640, 5, 5, 128, DType::kBF16});
}

TEST("cuda attention_input neither turns nor stores padding rows") {
  CudaBackend gpu;
  for (const std::int64_t rows : {4, 12, 24, 48}) {
    const QkvCase c = {rows, 0, 128, 4, 2, 32, DType::kBF16};
    QkvData d = qkv_data(c);
    QkvData g = on_gpu(gpu, c, d);
    run_qkv(*gpu.ops, c, g);
    const Tensor before = gpu.get(g.k_cache), q_before = gpu.get(g.q);
    d.position.as<std::int32_t>()[rows - 1] = -1;
    d.slot.as<std::int32_t>()[rows - 1] = -1;
    const auto lost = static_cast<std::int64_t>(((rows - 1) * 7 + 3) % kSlots);
    g = on_gpu(gpu, c, d);
    run_qkv(*gpu.ops, c, g);
    const Tensor after = gpu.get(g.k_cache), q_after = gpu.get(g.q);
    EXPECT(same_bits(q_before.view().first(rows - 1), q_after.view().first(rows - 1)));
    for (std::int64_t s = 0; s < kSlots; ++s) {
      const TensorView is = after.view().slice(s, 1), was = before.view().slice(s, 1);
      if (s != lost) EXPECT(same_bits(is, was));
      if (s == lost) EXPECT(same_bits(is, zeros({1, 2, 32}, DType::kBF16)));
    }
  }
}

TEST("cuda attention_input gives a row the same bits in batches of 1 to 16") {
  CudaBackend gpu;
  const QkvCase c = {16, 0, 3072, 6, 2, 64, DType::kBF16};
  const QkvData d = qkv_data(c), all = on_gpu(gpu, c, d);
  run_qkv(*gpu.ops, c, all);
  const Tensor q = gpu.get(all.q);
  for (const std::int64_t rows : {1, 5, 8, 11}) {
    QkvCase few = c;
    few.rows = rows;
    const QkvData part = on_gpu(gpu, few, d);
    run_qkv(*gpu.ops, few, part);
    EXPECT(same_bits(gpu.get(part.q), q.view().first(rows)));
  }
}

TEST("cuda head is the CPU's within rounding, for rows in any order") {
  CudaBackend gpu;
  CpuBackend host(8);
  for (const DType dtype : kActivationTypes) {
    for (const std::int64_t rows : all_or_few<std::int64_t>({1, 5, 9, 16, 20, 40}, {1, 9, 40})) {
      for (const std::int64_t size : all_or_few<std::int64_t>({64, 200, 512}, {64, 200})) {
        const std::int64_t outputs = 8 * 33;
        const float scale = 1.0f / std::sqrt(static_cast<float>(size));
        const Tensor x = random_tensor({50, size}, DType::kF32, 3.0f);
        const Tensor norm = random_tensor({size}, dtype);
        const Tensor weight = random_tensor({outputs, size}, dtype, scale);
        std::vector<std::int32_t> wanted;
        for (std::int64_t r = 0; r < rows; ++r) wanted.push_back(uniform(0, 49));
        const Tensor index = integers(wanted, {rows}), expected = zeros({rows, outputs});
        const Tensor last = zeros({rows, size}), normed = zeros({rows, size});
        host->head(x, {index, norm, 1e-5f, weight, last, normed}, expected);
        const Tensor gpu_x = gpu.put(x), gpu_index = gpu.put(index), gpu_norm = gpu.put(norm);
        const Tensor gpu_weight = gpu.put(weight);
        const Tensor gpu_last = gpu.poisoned({rows, size}, DType::kF32);
        const Tensor gpu_normed = gpu.poisoned({rows, size}, dtype);
        const Tensor out = gpu.poisoned({rows, outputs}, DType::kF32);
        gpu->head(gpu_x, {gpu_index, gpu_norm, 1e-5f, gpu_weight, gpu_last, gpu_normed}, out);
        EXPECT(relative_error(gpu.get(out), expected) < stage_tolerance(dtype));
      }
    }
  }
}
