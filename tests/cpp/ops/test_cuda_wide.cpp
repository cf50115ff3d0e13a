// The products of 17 to 128 decode rows on the GPU (kernels/wide_linear.h) through the operations
// that use them: right, and a row's bits are its own. Needs a build with CUDA and a GPU.
#include "few.h"
#include "qkv_case.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

constexpr std::int64_t kMostRows = 128;
std::vector<std::int64_t> row_counts() {
  return all_or_few<std::int64_t>({17, 24, 31, 32, 33, 48, 49, 64, 65, 80, 90, 100, 112, 127, 128},
                                  {17, 33, 49, 65, 81, 97});
}
// Few inputs, inputs and outputs that end within a tile, inputs of 1 to 4 parts, one tile, the
// released model's. Fewest: queues that go round in a block of four (twice) and in one alone.
std::vector<Shape> shapes() {
  return all_few_or_fewest<Shape>({{8, 8},
                                   {72, 64},
                                   {264, 520},
                                   {264, 832},
                                   {136, 1032},
                                   {1000, 264},
                                   {256, 2048},
                                   {5120, 3072},
                                   {3072, 8192},
                                   {8208, 3072}},
                                  {{72, 64}, {264, 520}}, {{72, 64}, {264, 6408}, {7688, 872}});
}

float scale_for(std::int64_t inputs) { return 1.0f / std::sqrt(static_cast<float>(inputs)); }

// The last rows of a product of the most, against a product of only these.
void compare_bits(CudaBackend& gpu, const TensorView& x, const TensorView& weight,
                  std::int64_t rows, const TensorView& expected) {
  const std::int64_t outputs = weight.dim(0);
  const Tensor some = gpu.poisoned({rows, outputs}, DType::kF32);
  gpu->linear(x.slice(kMostRows - rows, rows), weight, some);
  const bool same = same_bits(gpu.get(some), expected.slice(kMostRows - rows, rows));
  if (!same) std::cerr << "rows " << rows << " weight " << to_string(weight.shape) << '\n';
  EXPECT(same);
}

struct Ffn {
  Tensor norm, weight, normed, up;
  std::int64_t width;
  Ops::FfnInput input(std::int64_t rows) const {
    return {norm,
            1e-5f,
            weight.view().first(width),
            weight.view().slice(width, width),
            normed.view().first(rows),
            up.view().first(rows)};
  }
};

}  // namespace

TEST("cuda wide products are the CPU's within rounding") {
  CudaBackend gpu;
  CpuBackend host(8);
  for (const Shape& shape : shapes()) {
    const Tensor weight = random_tensor(shape, DType::kBF16), gpu_weight = gpu.put(weight);
    for (const std::int64_t rows :
         all_or_few<std::int64_t>({17, 40, 100, 128}, {17, 40, 60, 65, 81, 97, 128})) {
      if (shape[0] > 3000 && rows != 40) continue;  // the CPU's time
      const Tensor x = random_tensor({rows, shape[1]}, DType::kBF16), gpu_x = gpu.put(x);
      const Tensor expected = zeros({rows, shape[0]});
      host->linear(as_f32(x), weight, expected);
      for (const DType dtype : {DType::kBF16, DType::kF32}) {
        const Tensor out = gpu.poisoned({rows, shape[0]}, dtype);
        gpu->linear(gpu_x, gpu_weight, out);
        const double error = relative_error(gpu.get(out), expected);
        if (!(error < (dtype == DType::kF32 ? 2e-5 : 3e-3))) {
          std::cerr << "rows " << rows << " weight " << to_string(shape) << " error " << error
                    << '\n';
        }
        EXPECT(error < (dtype == DType::kF32 ? 2e-5 : 3e-3));
      }
      const Tensor sum = random_tensor({rows, shape[0]}), gpu_sum = gpu.put(sum);
      host->linear(as_f32(x), weight, sum, true);
      gpu->linear(gpu_x, gpu_weight, gpu_sum, true);
      EXPECT(relative_error(gpu.get(gpu_sum), sum) < 2e-5);
    }
  }
}

TEST("cuda wide products give a row the same bits among any others") {
  CudaBackend gpu;
  for (const Shape& shape : shapes()) {
    const Tensor weight = gpu.put(random_tensor(shape, DType::kBF16));
    const Tensor host_x = random_tensor({kMostRows, shape[1]}, DType::kBF16);
    const Tensor x = gpu.put(host_x);
    const Tensor all = gpu.poisoned({kMostRows, shape[0]}, DType::kF32);
    gpu->linear(x, weight, all);
    const Tensor expected = gpu.get(all);
    for (const std::int64_t rows : row_counts()) {
      compare_bits(gpu, x, weight, rows, expected);
    }
    // Alone among zeros, in another place.
    Tensor alone = zeros({17, shape[1]}, DType::kBF16);
    std::memcpy(alone.view().slice(5, 1).data, host_x.view().slice(99, 1).data,
                host_x.view().slice(99, 1).bytes());
    const Tensor out = gpu.poisoned({17, shape[0]}, DType::kF32), one = gpu.put(alone);
    gpu->linear(one, weight, out);
    EXPECT(same_bits(gpu.get(out.view().slice(5, 1)), expected.view().slice(99, 1)));
  }
}

TEST("cuda wide ffn_input is the CPU's within rounding, each row with its own bits") {
  CudaBackend gpu;
  CpuBackend host(8);
  for (const Shape& shape : all_few_or_fewest<Shape>({{128, 264}, {520, 136}, {3072, 8192}},
                                                     {{128, 264}}, {{6408, 264}, {872, 3848}})) {
    const std::int64_t size = shape[0], width = shape[1], most = size > 1000 ? 70 : kMostRows;
    const auto make = [&](auto place, DType dtype, const TensorView& norm,
                          const TensorView& weight) {
      return Ffn{place(norm), place(weight), place(zeros({most, size}, dtype)),
                 place(zeros({most, width}, dtype)), width};
    };
    const Tensor norm = random_tensor({size}, DType::kBF16);
    const Tensor weight = random_tensor({2 * width, size}, DType::kBF16, scale_for(size));
    const Tensor x = random_tensor({most, size}, DType::kF32, 3.0f), gpu_x = gpu.put(x);
    const Ffn on_device =
        make([&](const TensorView& view) { return gpu.put(view); }, DType::kBF16, norm, weight);
    const Tensor all = gpu.poisoned({most, width}, DType::kBF16);
    gpu->ffn_input(gpu_x, on_device.input(most), all);
    const Tensor got = gpu.get(all), expected = zeros({most, width});
    const Tensor normed = zeros({most, size}), up = zeros({most, width});
    host->ffn_input(
        x, {norm, 1e-5f, weight.view().first(width), weight.view().slice(width, width), normed, up},
        expected);
    EXPECT(relative_error(got, expected) < 1e-2);
    for (const std::int64_t rows : row_counts()) {
      if (rows > most) continue;
      const Tensor some = gpu.poisoned({rows, width}, DType::kBF16);
      gpu->ffn_input(gpu_x.view().slice(most - rows, rows), on_device.input(rows), some);
      EXPECT(same_bits(gpu.get(some), got.view().slice(most - rows, rows)));
    }
  }
}

TEST("cuda wide attention_input is the CPU's within rounding, each row with its own bits") {
  CudaBackend gpu;
  CpuBackend host(8);
  constexpr DType kBF16 = DType::kBF16;
  const std::vector<QkvCase> cases = all_few_or_fewest<QkvCase>(
      {{128, 0, 264, 3, 1, 128, kBF16},
       {100, 30, 128, 2, 2, 128, kBF16},
       {70, 20, 3072, 24, 8, 128, kBF16},
       {60, 10, 584, 2, 1, 256, kBF16}},
      {{100, 30, 128, 2, 2, 128, kBF16}}, {{120, 30, 6408, 2, 2, 128, kBF16}});
  for (const QkvCase& c : cases) {
    const QkvData d = qkv_data(c), g = on_gpu(gpu, c, d);
    run_qkv(*host.ops, c, d);
    run_qkv(*gpu.ops, c, g);
    const Tensor q = gpu.get(g.q);
    EXPECT(relative_error(q, d.q) < 1e-2);
    EXPECT(relative_error(gpu.get(g.k_cache), d.k_cache) < 1e-2);
    EXPECT(relative_error(gpu.get(g.v_cache), d.v_cache) < 1e-2);
    for (const std::int64_t rows : {18, 33, 64, 65, 81, 97}) {
      if (rows > c.rows) continue;
      QkvCase few = c;
      few.rows = rows, few.text = std::min(c.text, rows);
      const QkvData part = on_gpu(gpu, few, d);
      run_qkv(*gpu.ops, few, part);
      EXPECT(same_bits(gpu.get(part.q), q.view().first(rows)));
    }
  }
}

TEST("cuda wide attention_input neither turns nor stores padding rows") {
  CudaBackend gpu;
  const QkvCase c = {70, 0, 264, 3, 1, 128, DType::kBF16};
  QkvData d = qkv_data(c);
  const QkvData all = on_gpu(gpu, c, d);
  run_qkv(*gpu.ops, c, all);
  const auto is_padding = [](std::int64_t row) { return row % 9 == 4; };
  for (std::int64_t r = 0; r < c.rows; ++r) {
    if (is_padding(r)) d.position.as<std::int32_t>()[r] = d.slot.as<std::int32_t>()[r] = -1;
  }
  const QkvData padded = on_gpu(gpu, c, d);
  run_qkv(*gpu.ops, c, padded);
  const Tensor q = gpu.get(all.q), padded_q = gpu.get(padded.q);
  const Tensor keys = gpu.get(all.k_cache), padded_keys = gpu.get(padded.k_cache);
  const Tensor none = zeros({1, c.kv_heads, c.dim}, DType::kBF16);
  for (std::int64_t r = 0; r < c.rows; ++r) {
    const std::int64_t slot = (r * 7 + 3) % kSlots;
    const TensorView stored = padded_keys.view().slice(slot, 1);
    if (is_padding(r)) {
      EXPECT(same_bits(stored, none));
    } else {
      EXPECT(same_bits(stored, keys.view().slice(slot, 1)));
      EXPECT(same_bits(padded_q.view().slice(r, 1), q.view().slice(r, 1)));
    }
  }
}
