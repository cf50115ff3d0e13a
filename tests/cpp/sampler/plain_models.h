// Plain models that the sampler is tested against, written from the words of the specification and
// in another style than the code under test: whole vectors, doubles, sorting.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

namespace higgs_rt::testing {

using Column = std::vector<std::int32_t>;
using Columns = std::vector<Column>;

constexpr float kInf = std::numeric_limits<float>::infinity();

inline std::vector<float> random_logits(std::mt19937_64& random, std::size_t count, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(count);
  for (float& value : logits) value = normal(random);
  return logits;
}

// What a misbehaving model would sample: one id per codebook. After `calm` columns EOS turns up
// with rate `eos`; BOS anywhere with rate `bos`.
struct WildSource {
  std::mt19937_64 random;
  std::int32_t codebooks;
  std::int32_t vocab;
  double eos;
  double bos;
  std::int32_t calm;

  double unit() { return static_cast<double>(random() >> 11) * 0x1p-53; }
  Column operator()(std::int32_t column) {
    Column ids(static_cast<std::size_t>(codebooks));
    for (std::int32_t& id : ids) {
      id = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocab - 2));
      if (unit() < bos) id = vocab - 2;
      if (column >= calm && unit() < eos) id = vocab - 1;
    }
    return ids;
  }
};

inline WildSource wild_source(std::uint64_t seed, std::int32_t codebooks, std::int32_t vocab) {
  WildSource source{std::mt19937_64(seed), codebooks, vocab, 0, 0, 0};
  const double eos_rates[] = {0.0, 0.02, 0.1, 0.5, 1.0};
  source.eos = eos_rates[source.random() % 5];
  source.bos = source.random() % 3 == 0 ? 0.1 : 0.0;
  source.calm = static_cast<std::int32_t>(source.random() % 24);
  return source;
}

struct PlainStream {
  Columns columns;
  bool ended = false;
  std::optional<std::int32_t> codebook0_end;  // E, first-EOS rule only
};

// Specification 6.1: `sampled` sees the column's index and gives what the model sampled.
template <class Source>
PlainStream original_stream(Source sampled, std::int32_t codebooks, std::int32_t vocab,
                            std::int32_t max_columns) {
  const std::int32_t bos = vocab - 2;
  const std::int32_t eos = vocab - 1;
  PlainStream stream;
  stream.columns.push_back(Column(static_cast<std::size_t>(codebooks), bos));
  std::int32_t ramp = 0;
  std::optional<std::int32_t> wind;
  while (static_cast<std::int32_t>(stream.columns.size()) < max_columns) {
    const auto index = static_cast<std::int32_t>(stream.columns.size());
    Column c = sampled(index);
    if (ramp + 1 < codebooks) {
      std::fill(c.begin() + ramp + 1, c.end(), bos);
      ramp += 1;
    }
    const auto found = std::find(c.begin(), c.end(), eos);
    if (wind) {
      std::fill(c.begin(), c.begin() + (codebooks - *wind), eos);
      wind = *wind - 1;
    } else if (found != c.end()) {
      const auto first = static_cast<std::int32_t>(found - c.begin());
      std::fill(c.begin(), c.begin() + first, eos);
      wind = codebooks - 1 - first;
      stream.codebook0_end = index - first;
    }
    stream.columns.push_back(c);
    if (wind && *wind <= 0) {
      stream.ended = true;
      break;
    }
  }
  return stream;
}

// Specification 6.3: masks by counters b and e; a row of which one id is allowed yields that id.
template <class Source>
PlainStream transformers_stream(Source sampled, std::int32_t codebooks, std::int32_t vocab,
                                std::int32_t max_columns) {
  enum class Text { kAudio, kDelay, kStop };
  PlainStream stream;
  std::vector<std::int32_t> b(static_cast<std::size_t>(codebooks));
  std::vector<std::int32_t> e(b.size());
  std::iota(b.begin(), b.end(), 0);
  std::iota(e.begin(), e.end(), 1);
  Text text = Text::kAudio;
  while (static_cast<std::int32_t>(stream.columns.size()) < max_columns && text != Text::kStop) {
    Column c = sampled(static_cast<std::int32_t>(stream.columns.size()));
    for (std::size_t k = 0; k < c.size(); ++k) {
      if (b[k] >= 0) {
        c[k] = vocab - 2;
        b[k] -= 1;
      }
      if (text == Text::kDelay) e[k] -= 1;
      if (e[k] <= 0) c[k] = vocab - 1;
    }
    const auto ends = std::count(c.begin(), c.end(), vocab - 1);
    if (ends > 0) text = Text::kDelay;
    if (ends == codebooks) text = Text::kStop;
    stream.columns.push_back(c);
  }
  stream.ended = text == Text::kStop;
  return stream;
}

// Probabilities of one row (specification 7), in doubles; ties of top-p by ascending id.
inline std::vector<double> row_distribution(const std::vector<float>& logits, double temperature,
                                            std::int32_t top_k, double top_p) {
  const std::size_t count = logits.size();
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  std::vector<double> p(count);
  const double largest = logits[order[0]];
  for (std::size_t i = 0; i < count; ++i) p[i] = std::exp((logits[i] - largest) / temperature);
  if (top_k > 0) {
    const float kth = logits[order[static_cast<std::size_t>(top_k) - 1]];
    for (std::size_t i = 0; i < count; ++i) p[i] = logits[i] < kth ? 0 : p[i];
  }
  const auto normalise = [&] {
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& value : p) value /= sum;
  };
  normalise();
  if (top_p < 1) {
    double before = 0;
    for (const std::size_t i : order) {
      const double mass = p[i];
      if (before >= top_p) p[i] = 0;
      before += mass;
    }
    normalise();
  }
  return p;
}

}  // namespace higgs_rt::testing
