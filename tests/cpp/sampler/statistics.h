// Chi-square tests for the sampler: p-values by the regularised incomplete gamma function.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace higgs_rt::testing {

// Q(a, x), the upper tail: a series below a + 1, a continued fraction (Lentz) above.
inline double upper_gamma(double a, double x) {
  if (x <= 0) return 1.0;
  const double front = std::exp(a * std::log(x) - x - std::lgamma(a));
  if (x < a + 1) {
    double term = 1 / a;
    double sum = term;
    for (int n = 1; n < 2000 && term > sum * 1e-15; ++n) {
      term *= x / (a + n);
      sum += term;
    }
    return 1 - front * sum;
  }
  double b = x + 1 - a;
  double c = 1e300;
  double d = 1 / b;
  double fraction = d;
  for (int n = 1; n < 2000; ++n) {
    const double numerator = -n * (n - a);
    b += 2;
    d = 1 / (numerator * d + b);
    c = b + numerator / c;
    fraction *= d * c;
    if (std::abs(d * c - 1) < 1e-15) break;
  }
  return front * fraction;
}

// P-value of counts against probabilities that sum to 1. Cells that expect fewer than 5 are pooled;
// a count where the probability is 0 gives p = 0.
inline double chi_square_p(const std::vector<double>& counts,
                           const std::vector<double>& probabilities) {
  double total = 0;
  for (const double count : counts) total += count;
  double statistic = 0;
  double pooled_count = 0;
  double pooled_expected = 0;
  int cells = 0;
  const auto add_cell = [&](double count, double expected) {
    statistic += (count - expected) * (count - expected) / expected;
    ++cells;
  };
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double expected = total * probabilities[i];
    if (probabilities[i] == 0 && counts[i] > 0) return 0;
    if (expected < 5) {
      pooled_count += counts[i];
      pooled_expected += expected;
    } else {
      add_cell(counts[i], expected);
    }
  }
  if (pooled_expected >= 1) add_cell(pooled_count, pooled_expected);
  return cells < 2 ? 1.0 : upper_gamma((cells - 1) / 2.0, statistic / 2);
}

// P-value that the two coordinates of a table [rows, columns] of counts are independent.
inline double independence_p(const std::vector<std::vector<double>>& table) {
  std::vector<double> row_sums(table.size(), 0);
  std::vector<double> column_sums(table[0].size(), 0);
  double total = 0;
  for (std::size_t i = 0; i < table.size(); ++i) {
    for (std::size_t j = 0; j < table[i].size(); ++j) {
      row_sums[i] += table[i][j];
      column_sums[j] += table[i][j];
      total += table[i][j];
    }
  }
  double statistic = 0;
  for (std::size_t i = 0; i < table.size(); ++i) {
    for (std::size_t j = 0; j < table[i].size(); ++j) {
      const double expected = row_sums[i] * column_sums[j] / total;
      statistic += (table[i][j] - expected) * (table[i][j] - expected) / expected;
    }
  }
  const auto freedom = static_cast<double>((row_sums.size() - 1) * (column_sums.size() - 1));
  return upper_gamma(freedom / 2, statistic / 2);
}

inline constexpr double kSmallestP = 1e-4;

}  // namespace higgs_rt::testing
