#include "ops/cuda/cublas_lt.h"

#include <algorithm>
#include <iterator>

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
constexpr std::uint32_t kAlignment = 16;  // of every address, in bytes
constexpr int kMostRanks = 16;

// For products of up to `rows` rows.
struct CublasRank {
  std::int64_t outputs, inputs, rows;
  CublasLt::Proposal fastest;
};

#include "ops/cuda/cublas_ranks.inc"

// Steps of a sixteenth to an eighth; all sizes of decode graphs from 160 rows on are among them.
// Fewer rows take the algorithm for 40: it reads the weights as fast, and for `down` (8,192 inputs)
// more than twice as fast as those proposed for 8 to 32 rows.
constexpr std::int64_t kBounds[] = {
    40,   48,   64,   80,   96,   112,  128,  144,  160,  176,  192,  208,  224,  240,  256,  288,
    320,  352,  384,  416,  448,  480,  512,  576,  640,  704,  768,  832,  896,  960,  1056, 1188,
    1320, 1452, 1584, 1716, 1848, 1980, 2112, 2376, 2640, 2904, 3168, 3432, 3696, 3960, 4224};

std::int64_t bound_of(std::int64_t rows) {
  const auto found = std::ranges::lower_bound(kBounds, rows);
  return found != std::end(kBounds) ? *found : kBounds[std::size(kBounds) - 1];
}

// Proposals are in another order in another version.
CublasLt::Proposal measured(const CublasLt::Key& key) {
  const auto [rows, outputs, inputs, dtype, adds] = key;
  if (kRanksVersion != cublasLtGetVersion()) return {rows, 0};
  for (const CublasRank& entry : kRanks) {
    if (entry.outputs == outputs && entry.inputs == inputs && rows == entry.rows) {
      return entry.fastest;
    }
  }
  return {rows, 0};
}

void check_cublas(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail(ErrorCode::kInternal, "linear", "expected ", call, " to succeed, got ",
       cublasLtGetStatusName(status));
}

cublasLtMatrixLayoutOpaque_t layout_of(DType dtype, std::int64_t rows, std::int64_t columns) {
  cublasLtMatrixLayoutOpaque_t layout{};
  check_cublas(cublasLtMatrixLayoutInit(&layout, dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF,
                                        static_cast<std::uint64_t>(rows),
                                        static_cast<std::uint64_t>(columns), rows),
               "cublasLtMatrixLayoutInit");
  return layout;
}

}  // namespace

// cuBLASLt's matrices are column-major: out^T [O, R] = (weight^T [I, O])^T x^T [I, R].
struct CublasLt::Plan {
  cublasLtMatmulDescOpaque_t operation{};
  cublasLtMatrixLayoutOpaque_t weight{}, x{}, out{};
  cublasLtMatmulAlgo_t algorithm{};
  Key key;

  explicit Plan(const Key& for_key) : key(for_key) {
    check_cublas(cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "cublasLtMatmulDescInit");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check_cublas(cublasLtMatmulDescSetAttribute(&operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                &transposed, sizeof(transposed)),
                 "cublasLtMatmulDescSetAttribute");
    lay_out(std::get<0>(key));
  }

  // This proposal, or with `or_later` the first one from there on, if it is in one pass and can do
  // the key's rows; false: there is none.
  bool choose(cublasLtHandle_t handle, Proposal proposal, bool or_later) {
    cublasLtMatmulHeuristicResult_t found[kMostRanks] = {}, checked{};
    lay_out(proposal.rows);
    const int count = propose(handle, found);
    lay_out(std::get<0>(key));
    int rank = proposal.rank;
    while (or_later && rank < count && !is_one_pass(found[rank].algo)) ++rank;
    if (rank >= count || !is_one_pass(found[rank].algo)) return false;
    algorithm = found[rank].algo;
    return proposal.rows == std::get<0>(key) ||
           cublasLtMatmulAlgoCheck(handle, &operation, &weight, &x, &out, &out, &algorithm,
                                   &checked) == CUBLAS_STATUS_SUCCESS;
  }

 private:
  void lay_out(std::int64_t rows) {
    const auto [bound, outputs, inputs, dtype, adds] = key;
    weight = layout_of(DType::kBF16, inputs, outputs);
    x = layout_of(DType::kBF16, inputs, rows);
    out = layout_of(dtype, outputs, rows);
  }
  // Whether one block goes through all inputs of an output.
  static bool is_one_pass(const cublasLtMatmulAlgo_t& algorithm) {
    std::int32_t splits = 0;
    check_cublas(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                                      &splits, sizeof(splits), nullptr),
                 "cublasLtMatmulAlgoConfigGetAttribute");
    return splits == 0 || splits == 1;
  }

  // Best first; those that split the inputs only where there are no others.
  int propose(cublasLtHandle_t handle, cublasLtMatmulHeuristicResult_t* found) {
    const int count = propose(handle, CUBLASLT_REDUCTION_SCHEME_NONE, found);
    return count > 0 ? count : propose(handle, CUBLASLT_REDUCTION_SCHEME_MASK, found);
  }

  int propose(cublasLtHandle_t handle, std::uint32_t reductions,
              cublasLtMatmulHeuristicResult_t* found) {
    cublasLtMatmulPreference_t preference = nullptr;
    check_cublas(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      check_cublas(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof(value)),
                   "cublasLtMatmulPreferenceSetAttribute");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kAlignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, kAlignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, kAlignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, kAlignment);
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle, &operation, &weight, &x, &out, &out, preference, kMostRanks, found, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return 0;
    check_cublas(status, "cublasLtMatmulAlgoGetHeuristic");
    return count;
  }
};

CublasLt::CublasLt(CudaDevice& device)
    : device_(device), workspace_(device.allocate(kWorkspaceBytes)) {
  check_cublas(cublasLtCreate(&handle_), "cublasLtCreate");
}

CublasLt::~CublasLt() { cublasLtDestroy(handle_); }

std::span<const std::int64_t> CublasLt::bounds() { return kBounds; }

CublasLt::Plan& CublasLt::plan_for(const Key& key) {
  std::unique_ptr<Plan>& plan = plans_[key];
  if (plan != nullptr) return *plan;
  auto chosen = std::make_unique<Plan>(key);
  check_internal(chosen->choose(handle_, measured(key), false) ||
                     chosen->choose(handle_, {std::get<0>(key), 0}, true),
                 "linear", "cublasLt: expected an algorithm in one pass over the inputs, got none");
  plan = std::move(chosen);
  return *plan;
}

bool CublasLt::force(const Proposal& proposal, const Key& key) {
  check_internal(proposal.rank >= 0, "linear", "cublasLt: expected a rank from 0, got ",
                 proposal.rank);
  auto plan = std::make_unique<Plan>(key);
  if (!plan->choose(handle_, proposal, false)) return false;
  plans_[key] = std::move(plan);
  return true;
}

void CublasLt::product(const TensorView& x, const TensorView& weight, const TensorView& out,
                       bool accumulate) {
  Plan& plan = plan_for({bound_of(x.dim(0)), weight.dim(0), weight.dim(1), out.dtype, accumulate});
  auto x_layout = layout_of(DType::kBF16, weight.dim(1), x.dim(0));
  auto out_layout = layout_of(out.dtype, weight.dim(0), x.dim(0));
  const float one = 1.0f, beta = accumulate ? 1.0f : 0.0f;
  check_cublas(cublasLtMatmul(handle_, &plan.operation, &one, weight.data, &plan.weight, x.data,
                              &x_layout, &beta, out.data, &out_layout, out.data, &out_layout,
                              &plan.algorithm, workspace_.get(), kWorkspaceBytes, device_.stream()),
               "cublasLtMatmul");
}

}  // namespace higgs_rt
