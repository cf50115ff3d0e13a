// The small row-wise operations: norm, rope, swiglu, embeddings, gathers, cache writes.
#include "batch/step_batch.h"
#include "ops_test.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

TEST("rms_norm agrees with its formula, in place too, on every instruction set") {
  for (const char* isa : isas()) {
    CpuBackend ops(2, isa);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const std::int64_t size : {1, 15, 16, 100, 3072}) {
        const Tensor x = random_tensor({5, size}), weight = random_tensor({size}, dtype);
        const Tensor out = zeros({5, size});
        ops->rms_norm(x, weight, 1e-5f, out);
        for (std::int64_t r = 0; r < 5; ++r) {
          double squares = 0.0;
          for (std::int64_t i = 0; i < size; ++i) squares += std::pow(element(x, r * size + i), 2);
          const double scale = 1.0 / std::sqrt(squares / static_cast<double>(size) + 1e-5);
          for (std::int64_t i = 0; i < size; ++i) {
            EXPECT_NEAR(out.as<float>()[r * size + i],
                        element(x, r * size + i) * scale * element(weight, i), 3e-6);
          }
        }
        ops->rms_norm(x, weight, 1e-5f, x);
        EXPECT(same_bits(x, out));
      }
    }
  }
}

TEST("rms_norm gives a row the same bits alone and in a batch") {
  CpuBackend ops;
  const Tensor x = random_tensor({33, 515}), weight = random_tensor({515});
  const Tensor all = zeros({33, 515}), one = zeros({1, 515});
  ops->rms_norm(x, weight, 1e-5f, all);
  for (std::int64_t r = 0; r < 33; ++r) {
    ops->rms_norm(x.view().slice(r, 1), weight, 1e-5f, one);
    EXPECT(same_bits(one, all.view().slice(r, 1)));
  }
}

TEST("rope rotates pairs of halves by the row's position") {
  CpuBackend ops;
  for (const std::int64_t dim : {16, 64, 128}) {
    const Tensor table = random_tensor({50, dim / 2, 2}), x = random_tensor({9, 3, dim});
    const Tensor before = copy_of(x);
    std::vector<std::int32_t> positions;
    for (int i = 0; i < 9; ++i) positions.push_back(uniform(0, 49));
    ops->rope(x, integers(positions, {9}), table);
    for (std::int64_t r = 0; r < 9; ++r) {
      for (std::int64_t h = 0; h < 3; ++h) {
        for (std::int64_t i = 0; i < dim / 2; ++i) {
          const std::int64_t at = (r * 3 + h) * dim + i;
          const std::int64_t angle = (positions[static_cast<std::size_t>(r)] * (dim / 2) + i) * 2;
          const double c = element(table, angle), s = element(table, angle + 1);
          const double a = element(before, at), b = element(before, at + dim / 2);
          EXPECT_NEAR(x.as<float>()[at], a * c - b * s, 2e-6);
          EXPECT_NEAR(x.as<float>()[at + dim / 2], b * c + a * s, 2e-6);
        }
      }
    }
  }
  EXPECT_THROWS(ops->rope(zeros({1, 1, 4}), integers({7}, {1}), zeros({7, 2, 2})),
                "[rope] positions: expected 0..6, got 7");
}

TEST("swiglu agrees with silu(gate) * up over the whole range, in place too") {
  for (const char* isa : isas()) {
    CpuBackend ops(2, isa);
    const Tensor gate = random_tensor({7, 333}, DType::kF32, 4.0f), up = random_tensor({7, 333});
    const float special[] = {0.0f,    -0.0f, 1e-30f,  -87.0f,  -88.5f,
                             -104.0f, 88.6f, 1000.0f, -1000.0f};
    std::copy(std::begin(special), std::end(special), gate.as<float>());
    const Tensor out = zeros({7, 333});
    ops->swiglu(gate, up, out);
    for (std::int64_t i = 0; i < gate.view().size(); ++i) {
      const double g = element(gate, i);
      const double expected = g / (1.0 + std::exp(-g)) * element(up, i);
      EXPECT_NEAR(out.as<float>()[i], expected, 1e-30 + 6e-7 * std::abs(expected));
    }
    ops->swiglu(gate, up, gate);
    EXPECT(same_bits(gate, out));
  }
}

TEST("embed_text reads the table and behind it the prompt-table rows") {
  CpuBackend ops;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor table = random_tensor({10, 21}, dtype), rows = random_tensor({3, 21});
    const Tensor out = zeros({4, 21});
    ops->embed_text(table, rows, integers({9, 12, 0, 10}, {4}), out);
    for (std::int64_t i = 0; i < 21; ++i) {
      EXPECT_EQ(element(out, i), element(table, 9 * 21 + i));
      EXPECT_EQ(element(out, 21 + i), element(rows, 2 * 21 + i));
      EXPECT_EQ(element(out, 42 + i), element(table, i));
      EXPECT_EQ(element(out, 63 + i), element(rows, i));
    }
    EXPECT_THROWS(ops->embed_text(table, rows, integers({13}, {1}), out.view().first(1)),
                  "[embed_text] ids: expected 0..12, got 13");
    ops->embed_text(table, TensorView{nullptr, DType::kF32, {0, 21}}, integers({1}, {1}),
                    out.view().first(1));
  }
}

TEST("embed_columns sums one row of each codebook in order") {
  CpuBackend ops;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor table = random_tensor({8 * 26, 50}, dtype), out = zeros({40, 50});
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 40 * 8; ++i) ids.push_back(uniform(0, 25));
    ops->embed_columns(table, integers(ids, {40, 8}), out);
    for (std::int64_t r = 0; r < 40; ++r) {
      for (std::int64_t i = 0; i < 50; ++i) {
        float sum = 0.0f;
        for (std::int64_t k = 0; k < 8; ++k) {
          const std::int64_t row = k * 26 + ids[static_cast<std::size_t>(r * 8 + k)];
          sum += static_cast<float>(element(table, row * 50 + i));
        }
        EXPECT_EQ(out.as<float>()[r * 50 + i], sum);
      }
    }
  }
  EXPECT_THROWS(ops->embed_columns(zeros({20, 4}), integers({0, 10}, {1, 2}), zeros({1, 4})),
                "[embed_columns] columns: expected 0..9, got 10");
}

TEST("gather_columns takes host columns and fed-back ones") {
  CpuBackend ops;
  const Tensor given = integers({1, 2, 3, 4}, {2, 2}), last = integers({5, 6, 7, 8, 9, 10}, {3, 2});
  const Tensor out = zeros({3, 2}, DType::kI32);
  constexpr std::int32_t kFeedback = StepBatch::kFeedback;
  ops->gather_columns(integers({kFeedback + 2, 1, kFeedback}, {3}), given, last, out);
  const std::vector<std::int32_t> expected = {9, 10, 3, 4, 5, 6};
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(out.as<std::int32_t>()[i], expected[i]);
  EXPECT_THROWS(ops->gather_columns(integers({kFeedback + 3, 1, 0}, {3}), given, last, out),
                "of last, got 3");
  EXPECT_THROWS(ops->gather_columns(integers({2, 1, 0}, {3}), given, last, out), "of given, got 2");
}

TEST("gather_rows and store_kv move rows") {
  CpuBackend ops;
  const Tensor x = random_tensor({5, 9}), out = zeros({2, 9});
  ops->gather_rows(x, integers({4, 1}, {2}), out);
  EXPECT(same_bits(out.view().slice(0, 1), x.view().slice(4, 1)));
  EXPECT(same_bits(out.view().slice(1, 1), x.view().slice(1, 1)));
  EXPECT_THROWS(ops->gather_rows(x, integers({5, 1}, {2}), out), "expected 0..4, got 5");

  const Tensor k = random_tensor({2, 3, 4}), v = random_tensor({2, 3, 4});
  const Tensor k_cache = zeros({8, 3, 4}), v_cache = zeros({8, 3, 4});
  ops->store_kv(k, v, integers({6, 2}, {2}), k_cache, v_cache);
  EXPECT(same_bits(k_cache.view().slice(6, 1), k.view().slice(0, 1)));
  EXPECT(same_bits(v_cache.view().slice(2, 1), v.view().slice(1, 1)));
  EXPECT_EQ(v_cache.as<float>()[0], 0.0f);
  EXPECT_THROWS(ops->store_kv(k, v, integers({6, 8}, {2}), k_cache, v_cache),
                "[store_kv] slots: expected 0..7, got 8");
}

TEST("make_cpu_ops refuses unknown instruction sets, make_cuda_ops says what is missing") {
  EXPECT_THROWS(CpuBackend(1, "sse9"),
                "HIGGS_RT_CPU_ISA: expected generic, avx2, avx512 or reference");
  // A build with CUDA has them, but not for this device.
  const std::string text = thrown([] { make_cuda_ops(cpu()); });
  EXPECT(text.find("built without CUDA") != text.npos || text.find("a CUDA device") != text.npos);
}
