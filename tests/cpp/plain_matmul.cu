// cublasLtMatmul() of the test programs: cuBLASLt's own, or with HIGGS_RT_TEST_PLAIN_MATMUL a plain
// kernel. For racecheck, which breaks off over cuBLASLt's kernels (2025.3.1: "failed to handle a
// hardware exception"), and initcheck, which does not see that they write (bulk stores).
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>

namespace {

constexpr unsigned kThreads = 256;

// d[r, o] = sum over i of a[o, i] b[r, i], plus d[r, o] if it adds; one warp an output. `inputs` is
// a multiple of 8.
template <class Out>
__global__ void plain_matmul(const __nv_bfloat16* a, const __nv_bfloat16* b, Out* d,
                             std::int64_t outputs, std::int64_t rows, std::int64_t inputs,
                             bool adds) {
  const std::int64_t at = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32;
  if (at >= outputs * rows) return;
  const std::int64_t o = at % outputs, r = at / outputs;
  float sum = 0;
  for (std::int64_t i = 8 * (threadIdx.x % 32); i < inputs; i += 8 * 32) {
    uint4 left = *reinterpret_cast<const uint4*>(a + o * inputs + i);
    uint4 right = *reinterpret_cast<const uint4*>(b + r * inputs + i);
    const auto* x = reinterpret_cast<const __nv_bfloat16*>(&left);
    const auto* y = reinterpret_cast<const __nv_bfloat16*>(&right);
    for (int k = 0; k < 8; ++k) sum += __bfloat162float(x[k]) * __bfloat162float(y[k]);
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32 == 0) {
    d[at] = static_cast<Out>(adds ? sum + static_cast<float>(d[at]) : sum);
  }
}

template <class Value>
Value attribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t name) {
  Value value{};
  cublasLtMatrixLayoutGetAttribute(layout, name, &value, sizeof(value), nullptr);
  return value;
}

struct Matrix {
  explicit Matrix(cublasLtMatrixLayout_t layout)
      : type(static_cast<cudaDataType_t>(
            attribute<std::uint32_t>(layout, CUBLASLT_MATRIX_LAYOUT_TYPE))),
        rows(static_cast<std::int64_t>(
            attribute<std::uint64_t>(layout, CUBLASLT_MATRIX_LAYOUT_ROWS))),
        columns(static_cast<std::int64_t>(
            attribute<std::uint64_t>(layout, CUBLASLT_MATRIX_LAYOUT_COLS))),
        dense(attribute<std::int64_t>(layout, CUBLASLT_MATRIX_LAYOUT_LD) == rows) {}
  cudaDataType_t type;
  std::int64_t rows, columns;
  bool dense;
};

// What the runtime asks for: column-major D = A^T B (+ D), bf16, D bf16 or fp32.
cublasStatus_t run_plain(cublasLtMatmulDesc_t operation, const Matrix& a, const void* a_data,
                         const Matrix& b, const void* b_data, float beta, const Matrix& d,
                         void* d_data, cudaStream_t stream) {
  cublasOperation_t transposed{};
  cublasLtMatmulDescGetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                 sizeof(transposed), nullptr);
  const bool fits = transposed == CUBLAS_OP_T && a.type == CUDA_R_16BF && b.type == CUDA_R_16BF &&
                    a.dense && b.dense && d.dense && a.rows == b.rows && a.rows % 8 == 0 &&
                    d.rows == a.columns && d.columns == b.columns;
  if (!fits) return CUBLAS_STATUS_NOT_SUPPORTED;
  const std::int64_t blocks = (d.rows * d.columns * 32 + kThreads - 1) / kThreads;
  const auto launch = [&](auto* out) {
    plain_matmul<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
        static_cast<const __nv_bfloat16*>(a_data), static_cast<const __nv_bfloat16*>(b_data), out,
        d.rows, d.columns, a.rows, beta != 0);
  };
  if (d.type == CUDA_R_32F) {
    launch(static_cast<float*>(d_data));
  } else if (d.type == CUDA_R_16BF) {
    launch(static_cast<__nv_bfloat16*>(d_data));
  } else {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return cudaGetLastError() == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace

extern "C" cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                         const void* alpha, const void* a,
                                         cublasLtMatrixLayout_t a_layout, const void* b,
                                         cublasLtMatrixLayout_t b_layout, const void* beta,
                                         const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                                         cublasLtMatrixLayout_t d_layout,
                                         const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                                         size_t workspace_bytes, cudaStream_t stream) {
  if (std::getenv("HIGGS_RT_TEST_PLAIN_MATMUL") == nullptr) {
    using Matmul = decltype(&cublasLtMatmul);
    static const auto real = reinterpret_cast<Matmul>(dlsym(RTLD_NEXT, "cublasLtMatmul"));
    return real(handle, operation, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout,
                algorithm, workspace, workspace_bytes, stream);
  }
  if (*static_cast<const float*>(alpha) != 1.0f || c != d) return CUBLAS_STATUS_NOT_SUPPORTED;
  return run_plain(operation, Matrix(a_layout), a, Matrix(b_layout), b,
                   *static_cast<const float*>(beta), Matrix(d_layout), d, stream);
}
