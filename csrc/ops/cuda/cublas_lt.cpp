#include "ops/cuda/cublas_lt.h"

#include <array>

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
constexpr std::uint32_t kAlignment = 16;  // of every address, in bytes
constexpr int kMostRanks = 16;

// For products of up to `rows` rows.
struct CublasRank {
  std::int64_t outputs, inputs, rows;
  int rank;
};
struct PromptRank {
  std::int64_t outputs, inputs;
  DType out;
  bool adds;
  std::int64_t rows;
  int rank;
};

#include "ops/cuda/cublas_ranks.inc"

// Proposals are in another order in another version.
bool is_measured_version() { return kRanksVersion == cublasLtGetVersion(); }

int measured_rank(const CublasLt::Key& key) {
  if (!is_measured_version()) return 0;
  const auto [rows, outputs, inputs, dtype, adds] = key;
  for (const CublasRank& entry : kRanks) {
    if (entry.outputs == outputs && entry.inputs == inputs && rows <= entry.rows) return entry.rank;
  }
  return 0;
}

// What a product of prompt rows without an entry takes: proposals for this many rows.
constexpr std::int64_t kPromptRows = 1024;

// The entry for a product of prompt rows: the one for as many rows or the next more, or else for
// the most; null: there is none.
const PromptRank* measured_prompt_rank(const CublasLt::Key& key) {
  const PromptRank* found = nullptr;
  if (!is_measured_version()) return found;
  const auto [rows, outputs, inputs, dtype, adds] = key;
  for (const PromptRank& entry : kPromptRanks) {
    if (entry.outputs != outputs || entry.inputs != inputs || entry.out != dtype ||
        entry.adds != adds) {
      continue;
    }
    found = &entry;
    if (rows <= entry.rows) break;
  }
  return found;
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

  explicit Plan(const Key& key) {
    const auto [rows, outputs, inputs, dtype, adds] = key;
    check_cublas(cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "cublasLtMatmulDescInit");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check_cublas(cublasLtMatmulDescSetAttribute(&operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                &transposed, sizeof(transposed)),
                 "cublasLtMatmulDescSetAttribute");
    weight = layout_of(DType::kBF16, inputs, outputs);
    x = layout_of(DType::kBF16, inputs, rows);
    out = layout_of(dtype, outputs, rows);
  }

  // The proposal of this rank; with `one_pass` the first from there on whose blocks go through all
  // inputs. False: there is none.
  bool choose(cublasLtHandle_t handle, int rank, bool one_pass = false) {
    check_internal(rank >= 0 && rank < kMostRanks, "linear", "cublasLt: expected a rank in 0..",
                   kMostRanks - 1, ", got ", rank);
    cublasLtMatmulHeuristicResult_t found[kMostRanks] = {};
    const int count = propose(handle, one_pass ? kMostRanks : rank + 1, found);
    for (; rank < count; ++rank) {
      if (one_pass && splits_inputs(found[rank].algo)) continue;
      algorithm = found[rank].algo;
      return true;
    }
    return false;
  }

 private:
  static bool splits_inputs(const cublasLtMatmulAlgo_t& algorithm) {
    std::int32_t splits = 0;
    check_cublas(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                                      &splits, sizeof(splits), nullptr),
                 "cublasLtMatmulAlgoConfigGetAttribute");
    return splits > 1 || splits < 0;
  }

  int propose(cublasLtHandle_t handle, int most, cublasLtMatmulHeuristicResult_t* found) {
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
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle, &operation, &weight, &x, &out, &out, preference, most, found, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    check_cublas(status, "cublasLtMatmulAlgoGetHeuristic");
    return count;
  }
};

CublasLt::CublasLt(CudaDevice& device)
    : device_(device), workspace_(device.allocate(kWorkspaceBytes)) {
  check_cublas(cublasLtCreate(&handle_), "cublasLtCreate");
}

CublasLt::~CublasLt() { cublasLtDestroy(handle_); }

CublasLt::Plan& CublasLt::decode_plan(const Key& key) {
  const auto found = decode_plans_.find(key);
  if (found != decode_plans_.end()) return *found->second;
  const int rank = measured_rank(key);
  if (rank == 0 || !force_rank(rank, key)) {
    check_internal(force_rank(0, key), "linear", "cublasLt: expected an algorithm, got none");
  }
  return *decode_plans_.at(key);
}

bool CublasLt::force_rank(int rank, const Key& key) {
  auto plan = std::make_unique<Plan>(key);
  if (!plan->choose(handle_, rank)) return false;
  decode_plans_[key] = std::move(plan);
  return true;
}

CublasLt::Plan& CublasLt::prompt_plan(const Key& key) {
  const PromptRank* measured = measured_prompt_rank(key);
  Key most = key;
  std::get<0>(most) = measured != nullptr ? measured->rows : kPromptRows;
  std::unique_ptr<Plan>& plan = prompt_plans_[most];
  if (plan != nullptr) return *plan;
  auto chosen = std::make_unique<Plan>(most);
  const bool found = measured != nullptr ? chosen->choose(handle_, measured->rank)
                                         : chosen->choose(handle_, 0, /*one_pass=*/true);
  check_internal(found, "linear", "cublasLt: expected an algorithm for prompt rows, got none");
  plan = std::move(chosen);
  return *plan;
}

void CublasLt::product(const TensorView& x, const TensorView& weight, const TensorView& out,
                       bool accumulate, RowKind kind) {
  const Key key = {x.dim(0), weight.dim(0), weight.dim(1), out.dtype, accumulate};
  Plan& plan = kind == RowKind::kDecode ? decode_plan(key) : prompt_plan(key);
  auto x_layout = layout_of(DType::kBF16, weight.dim(1), x.dim(0));
  auto out_layout = layout_of(out.dtype, weight.dim(0), x.dim(0));
  const float one = 1.0f, beta = accumulate ? 1.0f : 0.0f;
  check_cublas(cublasLtMatmul(handle_, &plan.operation, &one, weight.data, &plan.weight, x.data,
                              &x_layout, &beta, out.data, &out_layout, out.data, &out_layout,
                              &plan.algorithm, workspace_.get(), kWorkspaceBytes, device_.stream()),
               "cublasLtMatmul");
}

}  // namespace higgs_rt
