#include "ops/cuda/kernels/tensor_maps.h"

namespace higgs_rt {

namespace {

constexpr cuuint32_t kColumns = 64;  // of a box

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                            const cuuint64_t*, const cuuint32_t*, const cuuint32_t*,
                            CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                            CUtensorMapFloatOOBfill);

// The driver's function that describes a matrix to the copy engine, found without linking to it.
Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult status{};
  const cudaError_t result = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                              12000, cudaEnableDefault, &status);
  return result == cudaSuccess && status == cudaDriverEntryPointSuccess
             ? reinterpret_cast<Encode>(function)
             : nullptr;
}
Encode encode() {
  static const Encode function = find_encode();
  return function;
}

}  // namespace

bool tensor_maps_exist() { return encode() != nullptr; }

cudaError_t describe_matrix(const __nv_bfloat16* data, int rows, int columns, int box,
                            CUtensorMap& map) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t row_bytes = static_cast<cuuint64_t>(columns) * sizeof(*data);
  const cuuint32_t box_sizes[] = {kColumns, static_cast<cuuint32_t>(box)}, steps[] = {1, 1};
  const CUresult result = encode()(
      &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<__nv_bfloat16*>(data), sizes,
      &row_bytes, box_sizes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace higgs_rt
