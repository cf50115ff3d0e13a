// The row operations on the GPU against the CPU's. Needs a build with CUDA and a GPU.
#include "batch/step_batch.h"
#include "cuda_backend.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

std::vector<std::int32_t> random_ids(std::int64_t count, int limit) {
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i) ids.push_back(uniform(0, limit - 1));
  return ids;
}

}  // namespace

TEST("cuda rms_norm is the CPU's within rounding, in place too") {
  CudaBackend gpu;
  CpuBackend cpu_ops;
  for (const DType weights : kActivationTypes) {
    for (const DType activations : kActivationTypes) {
      for (const std::int64_t size : {1, 15, 64, 515, 3072}) {
        const Tensor x = random_tensor({7, size}), weight = random_tensor({size}, weights);
        const Tensor expected = zeros({7, size});
        cpu_ops->rms_norm(x, weight, 1e-5f, expected);
        const Tensor gpu_x = gpu.put(x), gpu_weight = gpu.put(weight);
        const Tensor out = gpu.poisoned({7, size}, activations);
        gpu->rms_norm(gpu_x, gpu_weight, 1e-5f, out);
        EXPECT(relative_error(gpu.get(out), expected) < tolerance(activations));
        if (activations != DType::kF32) continue;
        gpu->rms_norm(gpu_x, gpu_weight, 1e-5f, gpu_x);
        EXPECT(same_bits(gpu.get(gpu_x), gpu.get(out)));
      }
    }
  }
}

TEST("cuda rms_norm gives a row the same bits alone and in a batch") {
  CudaBackend gpu;
  const Tensor x = gpu.put(random_tensor({33, 515})), weight = gpu.put(random_tensor({515}));
  const Tensor all = gpu.poisoned({33, 515}, DType::kBF16);
  gpu->rms_norm(x, weight, 1e-5f, all);
  const Tensor expected = gpu.get(all);
  for (std::int64_t r = 0; r < 33; ++r) {
    const Tensor one = gpu.poisoned({1, 515}, DType::kBF16);
    gpu->rms_norm(x.view().slice(r, 1), weight, 1e-5f, one);
    EXPECT(same_bits(gpu.get(one), expected.view().slice(r, 1)));
  }
}

TEST("cuda rope is the CPU's within rounding and passes over rows without a position") {
  CudaBackend gpu;
  CpuBackend cpu_ops;
  for (const DType dtype : kActivationTypes) {
    for (const std::int64_t dim : {2, 16, 30, 64, 128}) {
      const Tensor table = random_tensor({50, dim / 2, 2});
      const Tensor x = random_tensor({9, 3, dim}, dtype), expected = as_f32(x);
      std::vector<std::int32_t> positions = random_ids(9, 50);
      cpu_ops->rope(expected, integers(positions, {9}), table);
      std::copy_n(as_f32(x).as<float>() + 4 * 3 * dim, 3 * dim, expected.as<float>() + 4 * 3 * dim);
      positions[4] = -1;
      const Tensor out = gpu.put(x);
      gpu->rope(out, gpu.put(integers(positions, {9})), gpu.put(table));
      EXPECT(relative_error(gpu.get(out), expected) < tolerance(dtype));
    }
  }
}

TEST("cuda store_kv writes the slots given, none for -1, and leaves the others alone") {
  CudaBackend gpu;
  for (const DType dtype : kActivationTypes) {
    for (const std::int64_t dim : {1, 5, 16, 128}) {
      const Tensor k = random_tensor({4, 3, dim}, dtype), v = random_tensor({4, 3, dim}, dtype);
      const Tensor k_cache = random_tensor({20, 3, dim}, dtype), v_cache = copy_of(k_cache);
      const std::vector<std::int32_t> slots = {19, -1, 0, 7};
      const Tensor gpu_k = gpu.put(k_cache), gpu_v = gpu.put(v_cache);
      gpu->store_kv(gpu.put(k), gpu.put(v), gpu.put(integers(slots, {4})), gpu_k, gpu_v);
      for (std::int64_t row = 0; row < 4; ++row) {
        const std::int32_t slot = slots[static_cast<std::size_t>(row)];
        if (slot < 0) continue;
        const TensorView from_k = k.view().slice(row, 1), from_v = v.view().slice(row, 1);
        std::memcpy(k_cache.view().slice(slot, 1).data, from_k.data, from_k.bytes());
        std::memcpy(v_cache.view().slice(slot, 1).data, from_v.data, from_v.bytes());
      }
      EXPECT(same_bits(gpu.get(gpu_k), k_cache));
      EXPECT(same_bits(gpu.get(gpu_v), v_cache));
    }
  }
}

TEST("cuda swiglu is the CPU's within rounding over the whole range, in place too") {
  CudaBackend gpu;
  CpuBackend cpu_ops;
  for (const DType dtype : kActivationTypes) {
    for (const std::int64_t size : {1, 333, 8192}) {
      const Tensor gate = random_tensor({7, size}, dtype, 4.0f);
      const Tensor up = random_tensor({7, size}, dtype), expected = zeros({7, size});
      if (dtype == DType::kF32 && size > 8) {
        const float special[] = {0.0f, -0.0f, 1e-30f, -87.0f, -104.0f, 88.6f, 1000.0f, -1000.0f};
        std::copy(std::begin(special), std::end(special), gate.as<float>());
      }
      cpu_ops->swiglu(as_f32(gate), as_f32(up), expected);
      const Tensor gpu_gate = gpu.put(gate), gpu_up = gpu.put(up);
      const Tensor out = gpu.poisoned({7, size}, dtype);
      gpu->swiglu(gpu_gate, gpu_up, out);
      EXPECT(relative_error(gpu.get(out), expected) < tolerance(dtype));
      gpu->swiglu(gpu_gate, gpu_up, gpu_gate);
      EXPECT(same_bits(gpu.get(gpu_gate), gpu.get(out)));
    }
  }
}

TEST("cuda embed_text has the CPU's bits") {
  CudaBackend gpu;
  CpuBackend cpu_ops;
  for (const DType dtype : kActivationTypes) {
    for (const std::int64_t size : {1, 21, 3072}) {
      const Tensor table = random_tensor({10, size}, dtype), rows = random_tensor({3, size});
      const Tensor ids = integers(random_ids(40, 13), {40}), expected = zeros({40, size});
      cpu_ops->embed_text(table, rows, ids, expected);
      const Tensor out = gpu.poisoned({40, size}, DType::kF32);
      const Tensor gpu_table = gpu.put(table), gpu_ids = gpu.put(ids);
      gpu->embed_text(gpu_table, gpu.put(rows), gpu_ids, out);
      EXPECT(same_bits(gpu.get(out), expected));
    }
  }
  const Tensor table = gpu.put(random_tensor({10, 8}));
  const Tensor out = gpu.poisoned({1, 8}, DType::kF32);
  gpu->embed_text(table, TensorView{nullptr, DType::kF32, {0, 8}}, gpu.put(integers({1}, {1})),
                  out);
  EXPECT(same_bits(gpu.get(out), gpu.get(table.view().slice(1, 1))));
}

TEST("cuda gather_columns, embed_columns and embed_audio have the CPU's bits") {
  CudaBackend gpu;
  CpuBackend cpu_ops;
  for (const DType dtype : kActivationTypes) {
    for (const std::int64_t size : {1, 50, 3072}) {
      constexpr std::int64_t kBooks = 8, kRows = 40;
      const Tensor table = random_tensor({kBooks * 26, size}, dtype);
      const Tensor given = integers(random_ids(5 * kBooks, 26), {5, kBooks});
      const Tensor last = integers(random_ids(9 * kBooks, 26), {9, kBooks});
      std::vector<std::int32_t> index;
      for (int i = 0; i < kRows; ++i) {
        index.push_back(i % 2 == 0 ? uniform(0, 4) : StepBatch::kFeedback + uniform(0, 8));
      }
      const Tensor at = integers(index, {kRows});
      const Tensor columns = integers(random_ids(kRows * kBooks, 26), {kRows, kBooks});
      const Tensor expected = zeros({kRows, size});
      cpu_ops->embed_audio({at, given, last, table, columns}, expected);
      const Tensor gpu_at = gpu.put(at), gpu_given = gpu.put(given), gpu_last = gpu.put(last);
      const Tensor gpu_table = gpu.put(table);
      const Tensor gathered = gpu.poisoned({kRows, kBooks}, DType::kI32);
      gpu->gather_columns(gpu_at, gpu_given, gpu_last, gathered);
      EXPECT(same_bits(gpu.get(gathered), columns));
      const Tensor out = gpu.poisoned({kRows, size}, DType::kF32);
      gpu->embed_columns(gpu_table, gathered, out);
      EXPECT(same_bits(gpu.get(out), expected));
      const Tensor fused = gpu.poisoned({kRows, size}, DType::kF32);
      gpu->embed_audio({gpu_at, gpu_given, gpu_last, gpu_table, gathered}, fused);
      EXPECT(same_bits(gpu.get(fused), expected));
    }
  }
}

TEST("cuda gather_rows copies rows") {
  CudaBackend gpu;
  for (const std::int64_t size : {1, 3, 3072}) {
    const Tensor x = random_tensor({11, size}), expected = zeros({300, size});
    const std::vector<std::int32_t> rows = random_ids(300, 11);
    for (std::int64_t i = 0; i < 300; ++i) {
      const TensorView from = x.view().slice(rows[static_cast<std::size_t>(i)], 1);
      std::memcpy(expected.view().slice(i, 1).data, from.data, from.bytes());
    }
    const Tensor out = gpu.poisoned({300, size}, DType::kF32);
    const Tensor gpu_x = gpu.put(x);
    gpu->gather_rows(gpu_x, gpu.put(integers(rows, {300})), out);
    EXPECT(same_bits(gpu.get(out), expected));
  }
}

TEST("cuda row operations refuse other shapes and types") {
  CudaBackend gpu;
  const Tensor x = gpu.put(zeros({2, 8})), weight = gpu.put(zeros({8}));
  EXPECT_THROWS(gpu->rms_norm(x, gpu.put(zeros({7})), 1e-5f, x),
                "[rms_norm] weight: expected f32 [8], got");
  EXPECT_THROWS(gpu->rms_norm(x, weight, 1e-5f, gpu.put(zeros({3, 8}))), "[rms_norm] out");
  EXPECT_THROWS(gpu->swiglu(x, gpu.poisoned({2, 8}, DType::kBF16), x), "[swiglu] up");
  EXPECT_THROWS(gpu->gather_rows(x, x, x), "[gather_rows] rows: expected rank 1");
}
