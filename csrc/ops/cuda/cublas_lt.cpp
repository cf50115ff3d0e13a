#include "ops/cuda/cublas_lt.h"

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
constexpr std::uint32_t kAlignment = 16;  // of every address, in bytes
constexpr int kMostRanks = 16;

// For products of up to `rows` rows.
struct CublasRank {
  std::int32_t outputs, inputs, rows, rank;
};

#include "ops/cuda/cublas_ranks.inc"

// Proposals are in another order in another version.
int measured_rank(std::int64_t rows, std::int64_t outputs, std::int64_t inputs) {
  if (kRanksVersion != cublasLtGetVersion()) return 0;
  for (const CublasRank& entry : kRanks) {
    if (entry.outputs == outputs && entry.inputs == inputs && rows <= entry.rows) return entry.rank;
  }
  return 0;
}

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

  // The proposal of this rank; false: there is none.
  bool choose(cublasLtHandle_t handle, int rank) {
    check_internal(rank >= 0 && rank < kMostRanks, "linear", "cublasLt: expected a rank in 0..",
                   kMostRanks - 1, ", got ", rank);
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
    cublasLtMatmulHeuristicResult_t found[kMostRanks] = {};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle, operation, weight, x, out, out, preference, rank + 1, found, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    check_cublas(status, "cublasLtMatmulAlgoGetHeuristic");
    if (count <= rank) return false;
    algorithm = found[rank].algo;
    return true;
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
  const auto found = plans_.find(key);
  if (found != plans_.end()) return *found->second;
  const int rank = measured_rank(std::get<0>(key), std::get<1>(key), std::get<2>(key));
  if (rank == 0 || !force_rank(rank, key)) {
    check_internal(force_rank(0, key), "linear", "cublasLt: expected an algorithm, got none");
  }
  return *plans_.at(key);
}

bool CublasLt::force_rank(int rank, const Key& key) {
  const auto [rows, outputs, inputs, dtype, adds] = key;
  auto plan = std::make_unique<Plan>();
  plan->describe(rows, outputs, inputs, dtype);
  if (!plan->choose(handle_, rank)) return false;
  plans_[key] = std::move(plan);
  return true;
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
