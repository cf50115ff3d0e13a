#include <cstring>

#include "core/check.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

void CpuOps::store_kv(const TensorView& k, const TensorView& v, const TensorView& slots,
                      const TensorView& k_cache, const TensorView& v_cache) {
  expect_rank("store_kv", "k", k, 3);
  expect_rank("store_kv", "k_cache", k_cache, 3);
  const std::int64_t rows = k.dim(0), heads = k.dim(1), dim = k.dim(2);
  const std::int64_t num_slots = k_cache.dim(0);
  expect("store_kv", "k", k, DType::kF32, {rows, heads, dim});
  expect("store_kv", "v", v, DType::kF32, {rows, heads, dim});
  expect("store_kv", "slots", slots, DType::kI32, {rows});
  expect("store_kv", "k_cache", k_cache, DType::kF32, {num_slots, heads, dim});
  expect("store_kv", "v_cache", v_cache, DType::kF32, {num_slots, heads, dim});

  const std::int64_t size = heads * dim;
  const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(float);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t slot = slots.as<std::int32_t>()[r];
    check_internal(slot >= 0 && slot < num_slots, "store_kv", "slots: expected 0..", num_slots - 1,
                   ", got ", slot);
    std::memcpy(k_cache.as<float>() + slot * size, k.as<float>() + r * size, bytes);
    std::memcpy(v_cache.as<float>() + slot * size, v.as<float>() + r * size, bytes);
  }
}

}  // namespace higgs_rt
