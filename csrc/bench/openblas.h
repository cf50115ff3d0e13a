// The matrix product that the kernels are compared with.
#pragma once

#include <cstdint>

namespace higgs_rt::bench {

bool have_openblas();
void set_openblas_threads(int threads);
// c[m, n] = (beta) c + a[m, k] b, b [n, k] when `b_transposed`, [k, n] otherwise; fp32, row-major.
void openblas_sgemm(bool b_transposed, std::int64_t m, std::int64_t n, std::int64_t k,
                    const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta,
                    float* c, std::int64_t ldc);

}  // namespace higgs_rt::bench
