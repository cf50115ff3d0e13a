#include "ops/cuda/cublas_lt.h"

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
constexpr std::uint32_t kAlignment = 16;  // of every address, in bytes

void check_cublas(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail(ErrorCode::kInternal, "linear", "expected ", call, " to succeed, got ",
       cublasLtGetStatusName(status));
}

cublasLtMatrixLayout_t layout_of(cudaDataType_t type, std::int64_t rows, std::int64_t columns) {
  cublasLtMatrixLayout_t layout = nullptr;
  check_cublas(cublasLtMatrixLayoutCreate(&layout, type, static_cast<std::uint64_t>(rows),
                                          static_cast<std::uint64_t>(columns), rows),
               "cublasLtMatrixLayoutCreate");
  return layout;
}

}  // namespace

// cuBLASLt's matrices are column-major: out^T [O, R] = (weight^T [I, O])^T x^T [I, R].
struct CublasLt::Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, out = nullptr;
  cublasLtMatmulAlgo_t algorithm{};

  ~Plan() {
    if (out != nullptr) cublasLtMatrixLayoutDestroy(out);
    if (x != nullptr) cublasLtMatrixLayoutDestroy(x);
    if (weight != nullptr) cublasLtMatrixLayoutDestroy(weight);
    if (operation != nullptr) cublasLtMatmulDescDestroy(operation);
  }

  void describe(std::int64_t rows, std::int64_t outputs, std::int64_t inputs, DType dtype) {
    check_cublas(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "cublasLtMatmulDescCreate");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check_cublas(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                                sizeof(transposed)),
                 "cublasLtMatmulDescSetAttribute");
    weight = layout_of(CUDA_R_16BF, inputs, outputs);
    x = layout_of(CUDA_R_16BF, inputs, rows);
    out = layout_of(dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF, outputs, rows);
  }

  void choose(cublasLtHandle_t handle) {
    cublasLtMatmulPreference_t preference = nullptr;
    check_cublas(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      check_cublas(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof(value)),
                   "cublasLtMatmulPreferenceSetAttribute");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kAlignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, kAlignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, kAlignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, kAlignment);
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle, operation, weight, x, out, out, preference, 1, &found, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    check_cublas(status, "cublasLtMatmulAlgoGetHeuristic");
    check_internal(count == 1, "linear", "cublasLt: expected an algorithm, got none");
    algorithm = found.algo;
  }
};

CublasLt::CublasLt(CudaDevice& device)
    : device_(device), workspace_(device.allocate(kWorkspaceBytes)) {
  check_cublas(cublasLtCreate(&handle_), "cublasLtCreate");
}

CublasLt::~CublasLt() {
  plans_.clear();
  cublasLtDestroy(handle_);
}

const CublasLt::Plan& CublasLt::plan_for(const Key& key) {
  std::unique_ptr<Plan>& plan = plans_[key];
  if (plan == nullptr) {
    auto made = std::make_unique<Plan>();
    made->describe(std::get<0>(key), std::get<1>(key), std::get<2>(key), std::get<3>(key));
    made->choose(handle_);
    plan = std::move(made);
  }
  return *plan;
}

void CublasLt::product(const TensorView& x, const TensorView& weight, const TensorView& out,
                       bool accumulate) {
  const Plan& plan = plan_for({x.dim(0), weight.dim(0), weight.dim(1), out.dtype, accumulate});
  const float one = 1.0f, beta = accumulate ? 1.0f : 0.0f;
  check_cublas(cublasLtMatmul(handle_, plan.operation, &one, weight.data, plan.weight, x.data,
                              plan.x, &beta, out.data, plan.out, out.data, plan.out,
                              &plan.algorithm, workspace_.get(), kWorkspaceBytes, device_.stream()),
               "cublasLtMatmul");
}

}  // namespace higgs_rt
