// Matrices as the copy engine of compute capability 9.0 sees them.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

namespace higgs_rt {

// Whether the driver can describe matrices.
bool tensor_maps_exist();
// A matrix [rows, columns] bf16, to be copied in boxes of `box` rows and 64 columns, swizzled by
// 128 bytes; the address is a multiple of 16, `columns` of 8. What lies outside is zero.
cudaError_t describe_matrix(const __nv_bfloat16* data, int rows, int columns, int box,
                            CUtensorMap& map);

}  // namespace higgs_rt
