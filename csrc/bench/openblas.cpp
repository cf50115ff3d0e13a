#include "bench/openblas.h"

// The two functions of scipy-openblas32 that are needed; its own header renames the whole of BLAS.
extern "C" {
void scipy_cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                       const float* a, int lda, const float* b, int ldb, float beta, float* c,
                       int ldc);
void scipy_openblas_set_num_threads(int threads);
}

namespace higgs_rt::bench {

bool have_openblas() { return true; }

void set_openblas_threads(int threads) { scipy_openblas_set_num_threads(threads); }

void openblas_sgemm(bool b_transposed, std::int64_t m, std::int64_t n, std::int64_t k,
                    const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta,
                    float* c, std::int64_t ldc) {
  constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112;
  const auto narrow = [](std::int64_t value) { return static_cast<int>(value); };
  scipy_cblas_sgemm(kRowMajor, kNoTrans, b_transposed ? kTrans : kNoTrans, narrow(m), narrow(n),
                    narrow(k), 1.0f, a, narrow(lda), b, narrow(ldb), beta, c, narrow(ldc));
}

}  // namespace higgs_rt::bench
