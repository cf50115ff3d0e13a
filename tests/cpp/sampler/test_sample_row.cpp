#include "sampler/sample_row.h"

#include <barrier>
#include <limits>
#include <thread>

#include "check.h"
#include "core/dtype.h"
#include "sampler/cpu/host_lanes.h"
#include "sampler/plain_models.h"
#include "sampler/statistics.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Row {
  std::vector<float> logits;
  std::vector<std::int32_t> keys = std::vector<std::int32_t>(logits.size());
  std::vector<std::uint32_t> weights = std::vector<std::uint32_t>(logits.size());

  std::int32_t sample(const RowFilter& filter, std::uint32_t random) {
    return sample_row(HostLanes{}, logits.data(), static_cast<std::int32_t>(logits.size()), filter,
                      random, {keys.data(), weights.data()});
  }
};

std::vector<float> random_logits(std::mt19937_64& random, std::size_t count, bool coarse) {
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> logits(count);
  for (float& value : logits) value = coarse ? to_float(to_bf16(normal(random))) : normal(random);
  if (coarse) {
    for (float& value : logits) value = std::round(value);  // many ties
  }
  return logits;
}

// A group of lanes as threads: what a warp is to the CUDA sampler.
template <int kLanes>
struct ThreadLanes {
  struct Shared {
    std::barrier<> barrier{kLanes};
    std::uint64_t values[kLanes];
  };
  static constexpr std::int32_t kCount = kLanes;
  Shared* shared;
  std::int32_t lane;

  template <class Value, class Combine>
  Value combine(Value value, Combine with) const {
    shared->values[lane] = static_cast<std::uint64_t>(value);
    shared->barrier.arrive_and_wait();
    auto result = static_cast<Value>(shared->values[0]);
    for (int i = 1; i < kLanes; ++i) result = with(result, static_cast<Value>(shared->values[i]));
    shared->barrier.arrive_and_wait();
    return result;
  }
  std::int32_t index() const { return lane; }
  template <class Value>
  Value sum(Value value) const {
    return combine(value, [](Value a, Value b) { return a + b; });
  }
  std::int32_t max(std::int32_t value) const {
    return combine(value, [](std::int32_t a, std::int32_t b) { return a > b ? a : b; });
  }
  std::int32_t min(std::int32_t value) const {
    return combine(value, [](std::int32_t a, std::int32_t b) { return a < b ? a : b; });
  }
  std::int32_t find(const std::uint32_t* weights, std::int32_t vocab, std::uint64_t target) const {
    combine(0, [](int a, int) { return a; });  // every lane has written its weights
    return HostLanes{}.find(weights, vocab, target);
  }
};

// Whether kLanes threads get from each row what one lane gets.
template <int kLanes>
bool lanes_agree(std::vector<Row> rows, const std::vector<RowFilter>& filters) {
  typename ThreadLanes<kLanes>::Shared shared;
  std::vector<std::int32_t> got(rows.size());
  std::vector<std::thread> threads;
  for (std::int32_t lane = 0; lane < kLanes; ++lane) {
    threads.emplace_back([&, lane] {
      for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::int32_t id = sample_row(
            ThreadLanes<kLanes>{&shared, lane}, rows[i].logits.data(),
            static_cast<std::int32_t>(rows[i].logits.size()), filters[i],
            static_cast<std::uint32_t>(i) << 18, {rows[i].keys.data(), rows[i].weights.data()});
        if (lane == 0) got[i] = id;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  bool same = true;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::vector<std::uint32_t> weights = rows[i].weights;
    same = same && rows[i].sample(filters[i], static_cast<std::uint32_t>(i) << 18) == got[i];
    same = same && (filters[i].temperature == 0 || rows[i].weights == weights);
  }
  return same;
}

}  // namespace

TEST("sample_row: the same ids and weights whatever the number of lanes") {
  std::mt19937_64 random(41);
  std::vector<Row> rows;
  std::vector<RowFilter> filters;
  for (int i = 0; i < 60; ++i) {
    rows.push_back({random_logits(random, 3 + random() % 200, i % 2 == 0)});
    const auto top_k = static_cast<std::int32_t>(random() % rows.back().logits.size());
    filters.push_back({i % 10 == 0 ? 0.0f : 0.8f, top_k, i % 3 == 0 ? 1.0f : 0.7f});
  }
  EXPECT(lanes_agree<3>(rows, filters));
  EXPECT(lanes_agree<32>(std::vector<Row>(rows.begin(), rows.begin() + 12), filters));
}

TEST("sample_row: the weight is exp to single precision") {
  for (int i = 0; i <= 20000; ++i) {
    const float y = -19.0f * static_cast<float>(i) / 20000;
    const double exact = std::exp(static_cast<double>(y)) * portable::kOne;
    EXPECT_NEAR(portable::exp_weight(y), exact, 0.51 + 3e-7 * exact);
  }
  EXPECT_EQ(portable::exp_weight(0.0f), portable::kOne);
  EXPECT_EQ(portable::exp_weight(-0.0f), portable::kOne);
  EXPECT_EQ(portable::exp_weight(-40.0f), 0u);
  EXPECT_EQ(portable::exp_weight(-kInf), 0u);
}

TEST("sample_row: keys have the order of the floats") {
  const std::vector<float> ascending = {-kInf,  -3e38f, -1.0f, -1e-40f, 0.0f,
                                        1e-40f, 1e-3f,  1.0f,  3e38f,   kInf};
  for (std::size_t i = 1; i < ascending.size(); ++i) {
    EXPECT(portable::key_of(ascending[i - 1]) < portable::key_of(ascending[i]));
    EXPECT_EQ(portable::value_of(portable::key_of(ascending[i])), ascending[i]);
  }
  EXPECT_EQ(portable::key_of(-0.0f), portable::key_of(0.0f));
  EXPECT_EQ(portable::key_of(-kInf), portable::kKeyOfMinusInfinity);
}

TEST("sample_row: the draw gives each id exactly its weight") {
  std::vector<std::uint32_t> weights(70, 0);
  const std::pair<int, std::uint32_t> set[] = {{0, 3}, {1, 1}, {31, 2}, {32, 4}, {63, 1}, {69, 5}};
  for (const auto& [id, weight] : set) weights[static_cast<std::size_t>(id)] = weight;
  std::vector<std::uint32_t> drawn(70, 0);
  for (std::uint64_t target = 0; target < 16; ++target) {
    ++drawn[static_cast<std::size_t>(HostLanes{}.find(weights.data(), 70, target))];
  }
  EXPECT(drawn == weights);
}

// Which ids stay, for rows of many sizes and kinds, against sorting in doubles.
TEST("sample_row: top-k and top-p keep what the definition keeps") {
  std::mt19937_64 random(5);
  const float p_values[] = {1.0f, 0.95f, 0.5f, 0.1f, 1e-6f};
  for (int round = 0; round < 3000; ++round) {
    const std::size_t vocab = 3 + random() % 300;
    Row row{random_logits(random, vocab, round % 2 == 0)};
    RowFilter filter;
    filter.temperature = 0.2f + 0.1f * static_cast<float>(random() % 20);
    filter.top_k = static_cast<std::int32_t>(random() % (vocab + 1));
    filter.top_p = p_values[random() % 5];
    const std::int32_t id = row.sample(filter, static_cast<std::uint32_t>(random() >> 40));
    const std::vector<double> p =
        row_distribution(row.logits, filter.temperature, filter.top_k, filter.top_p);
    double total = 0;
    for (const std::uint32_t weight : row.weights) total += weight;
    bool same = id >= 0 && row.weights[static_cast<std::size_t>(id)] > 0;
    for (std::size_t i = 0; i < vocab; ++i)
      same = same && std::abs(row.weights[i] / total - p[i]) < 1e-6;
    EXPECT(same);
  }
}

TEST("sample_row: equal logits stay together under top-k, and from the lowest id under top-p") {
  Row row{{1, 2, 2, 0, 2, 1, -1}};
  row.sample({1.0f, 2, 1.0f}, 0);
  EXPECT(row.weights[1] == row.weights[2] && row.weights[2] == row.weights[4]);
  EXPECT(row.weights[1] > 0 && row.weights[0] == 0 && row.weights[5] == 0);

  Row flat{std::vector<float>(8, 0.5f)};
  flat.sample({0.7f, 0, 0.5f}, 0);  // the mass before id 4 is 0.5, not less than p
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(flat.weights[i] > 0, i < 4);
  flat.sample({0.7f, 0, 0.51f}, 0);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(flat.weights[i] > 0, i < 5);
  flat.sample({0.7f, 0, 1e-30f}, 0);  // at least one
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(flat.weights[i] > 0, i < 1);
}

TEST("sample_row: top-k and top-p are exact to the last bit") {
  Row close{{2, std::nextafter(2.0f, 0.0f), 1}};
  close.sample({1.0f, 1, 1.0f}, 0);
  EXPECT(close.weights[0] > 0 && close.weights[1] == 0);

  // Limits p * total between kOne and kOne + 1: the mass before id 1, kOne, is still below them.
  int met = 0;
  for (int i = 0; i < 2000; ++i) {
    Row row{{0.0f, -0.001f * static_cast<float>(i + 1)}};
    const double total = double{portable::kOne} + portable::exp_weight(row.logits[1]);
    const auto p = static_cast<float>(portable::kOne / total);
    const double limit = p * total;
    if (limit <= portable::kOne || limit >= double{portable::kOne} + 1) continue;
    ++met;
    row.sample({1.0f, 0, p}, 0);
    EXPECT(row.weights[1] > 0);
  }
  EXPECT(met > 10);
}

TEST("sample_row: greedy takes the largest logit, the lowest id of equals, whatever the draw") {
  Row row{{-3, 7, 1, 7, -kInf, 6}};
  for (const std::uint32_t random : {0u, 12345u, (1u << 24) - 1}) {
    EXPECT_EQ(row.sample({0.0f, 1, 0.1f}, random), 1);
  }
  EXPECT_EQ((Row{{-kInf, -5, -5}}.sample({0.0f, 0, 1.0f}, 0)), 1);
  EXPECT_EQ((Row{{-0.0f, 0.0f, -1}}.sample({0.0f, 0, 1.0f}, 0)), 0);
}

TEST("sample_row: infinities and NaN are defined") {
  for (const float temperature : {0.0f, 0.7f}) {
    const RowFilter filter{temperature, 0, 0.9f};
    EXPECT_EQ((Row{{-kInf, -kInf, -kInf}}.sample(filter, 99)), kNoId);
    EXPECT_EQ((Row{{1, kNan, 2}}.sample(filter, 99)), kNoId);
    EXPECT_EQ((Row{{-kInf, -7, -kInf}}.sample(filter, 99)), 1);
    EXPECT_EQ((Row{{3e38f, kInf, -3e38f}}.sample(filter, 99)), 1);
    EXPECT_EQ((Row{{3e38f, 0, -3e38f}}.sample(filter, (1u << 24) - 1)), 0);
  }
  Row both{{kInf, 0, kInf}};
  both.sample({1.0f, 0, 1.0f}, 0);
  EXPECT(both.weights[0] == both.weights[2] && both.weights[1] == 0 && both.weights[0] > 0);
  EXPECT_EQ((Row{{1, 2, 1.5f}}.sample({1e-30f, 0, 1.0f}, (1u << 24) - 1)), 1);  // nearly greedy
}

TEST("sample_row: distribution of a real-sized row") {
  std::mt19937_64 random(11);
  Row row{random_logits(random, 1026, false)};
  const RowFilter filter{0.9f, 50, 0.95f};
  std::vector<double> counts(1026, 0);
  for (std::uint32_t step = 0; step < 30000; ++step) {
    counts[static_cast<std::size_t>(
        row.sample(filter, static_cast<std::uint32_t>(random() >> 40)))] += 1;
  }
  const std::vector<double> p = row_distribution(row.logits, 0.9f, 50, 0.95);
  EXPECT(chi_square_p(counts, p) > kSmallestP);
}
