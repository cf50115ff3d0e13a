#include "ops_test.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

// A batch over randomly ordered blocks. lengths[s]: positions of sequence s in the cache; its last
// queries[s] positions are the rows.
struct Problem {
  std::int64_t query_heads, kv_heads, dim;
  KvLayout layout;
  std::int32_t max_blocks = 0;
  std::vector<std::int32_t> table, sequence, position;
  Tensor k_cache, v_cache, q;

  Problem(std::int64_t hq, std::int64_t hk, std::int64_t d, std::int32_t block_tokens,
          const std::vector<int>& lengths, const std::vector<int>& queries)
      : query_heads(hq), kv_heads(hk), dim(d) {
    layout.block_tokens = block_tokens;
    for (const int n : lengths) {
      max_blocks = std::max(max_blocks, layout.blocks_for(n));
      layout.num_blocks += layout.blocks_for(n);
    }
    std::vector<std::int32_t> order;
    for (int i = 0; i < layout.num_blocks; ++i) order.push_back(i);
    std::shuffle(order.begin(), order.end(), generator());
    std::size_t next = 0;
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      for (int b = 0; b < max_blocks; ++b) {
        table.push_back(b < layout.blocks_for(lengths[s]) ? order[next++] : -1);
      }
      for (int i = lengths[s] - queries[s]; i < lengths[s]; ++i) {
        sequence.push_back(static_cast<std::int32_t>(s));
        position.push_back(i);
      }
    }
    k_cache = random_tensor({layout.num_slots(), hk, d});
    v_cache = random_tensor({layout.num_slots(), hk, d});
    q = random_tensor({rows(), hq, d}, DType::kF32, 2.0f);
  }

  std::int64_t rows() const { return static_cast<std::int64_t>(sequence.size()); }

  // The rows [begin, begin + count) alone.
  Tensor run(CpuBackend& ops, std::int64_t begin, std::int64_t count) const {
    const Tensor out = zeros({count, query_heads, dim});
    const auto sequences = static_cast<std::int64_t>(table.size()) / max_blocks;
    const Tensor seq =
        integers({sequence.begin() + begin, sequence.begin() + begin + count}, {count});
    const Tensor pos =
        integers({position.begin() + begin, position.begin() + begin + count}, {count});
    const Tensor blocks = integers(table, {sequences, max_blocks});
    ops->attention(q.view().slice(begin, count), k_cache, v_cache, {seq, pos, blocks, layout}, out);
    return out;
  }

  std::vector<double> reference() const {
    std::vector<double> out;
    for (std::int64_t r = 0; r < rows(); ++r) {
      for (std::int64_t h = 0; h < query_heads; ++h) append_head(r, h, out);
    }
    return out;
  }

  void append_head(std::int64_t r, std::int64_t h, std::vector<double>& out) const {
    const auto row = static_cast<std::size_t>(r);
    const std::int32_t* blocks = table.data() + sequence[row] * max_blocks;
    const auto at = [&](int p) {
      return (layout.slot(blocks, p) * kv_heads + h / (query_heads / kv_heads)) * dim;
    };
    std::vector<double> result(static_cast<std::size_t>(dim), 0.0);
    double total = 0.0;
    for (int p = 0; p <= position[row]; ++p) {
      double dot = 0.0;
      for (std::int64_t i = 0; i < dim; ++i) {
        dot += element(q, (r * query_heads + h) * dim + i) * element(k_cache, at(p) + i);
      }
      const double weight = std::exp(dot / std::sqrt(static_cast<double>(dim)));
      total += weight;
      for (std::int64_t i = 0; i < dim; ++i) {
        result[static_cast<std::size_t>(i)] += weight * element(v_cache, at(p) + i);
      }
    }
    for (const double value : result) out.push_back(value / total);
  }
};

}  // namespace

TEST("attention agrees with a double-precision softmax for many shapes") {
  for (const char* isa : isas()) {
    CpuBackend ops(2, isa);
    const Problem problems[] = {
        {1, 1, 16, 4, {1}, {1}},
        {4, 4, 64, 16, {40, 1, 17}, {1, 1, 17}},
        {4, 1, 20, 5, {33, 12}, {9, 2}},
        {6, 2, 128, 16, {130, 3}, {7, 3}},
        {8, 1, 32, 7, {50}, {50}},
        {24, 8, 128, 256, {200}, {2}},
        {16, 1, 48, 3, {10, 10, 10, 10}, {1, 10, 2, 5}},
    };
    for (const Problem& problem : problems) {
      const Tensor out = problem.run(ops, 0, problem.rows());
      EXPECT(max_error(out, problem.reference()) < 4e-6);
    }
  }
}

TEST("attention gives a row the same bits alone, in any batch and for any number of threads") {
  for (const char* isa : isas()) {
    const Problem problem(6, 2, 72, 16, {90, 31, 5}, {23, 1, 5});
    CpuBackend ops(2, isa), single(1, isa), three(3, isa);
    const Tensor all = problem.run(ops, 0, problem.rows());
    EXPECT(same_bits(problem.run(single, 0, problem.rows()), all));
    EXPECT(same_bits(problem.run(three, 0, problem.rows()), all));
    for (std::int64_t begin = 0; begin < problem.rows(); ++begin) {
      for (const std::int64_t count : {1, 2, 5}) {
        if (begin + count > problem.rows()) continue;
        EXPECT(same_bits(problem.run(ops, begin, count), all.view().slice(begin, count)));
      }
    }
  }
}

TEST("attention gives the same bits for every block size") {
  CpuBackend ops;
  const Problem paged(2, 1, 40, 8, {61}, {61});
  Problem linear(2, 1, 40, 64, {61}, {61});
  linear.q = copy_of(paged.q);
  for (int p = 0; p < 61; ++p) {
    const std::int64_t from = paged.layout.slot(paged.table.data(), p);
    const std::int64_t to = linear.layout.slot(linear.table.data(), p);
    std::memcpy(linear.k_cache.as<float>() + to * 40, paged.k_cache.as<float>() + from * 40, 160);
    std::memcpy(linear.v_cache.as<float>() + to * 40, paged.v_cache.as<float>() + from * 40, 160);
  }
  EXPECT(same_bits(linear.run(ops, 0, 61), paged.run(ops, 0, 61)));
}

TEST("attention refuses positions and blocks that do not exist") {
  CpuBackend ops;
  Problem problem(2, 1, 16, 4, {10}, {2});
  problem.table[1] = -1;
  EXPECT_THROWS(problem.run(ops, 0, 2), "[attention] block_table: expected 0..2, got -1");
  problem.position[1] = 12;
  EXPECT_THROWS(problem.run(ops, 0, 2), "[attention] position: expected 0..11, got 12");
}
