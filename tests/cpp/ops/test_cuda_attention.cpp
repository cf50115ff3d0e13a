// Attention on the GPU against the CPU's. Needs a build with CUDA and a GPU.
#include "cuda_backend.h"
#include "few.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

// Rows of one sequence: the last `count` of its positions, or those from `first` on.
struct Rows {
  int length, count;
};

// A batch over randomly ordered blocks, with NaN in every slot that no position owns.
struct Problem {
  std::int64_t query_heads, kv_heads, dim;
  KvLayout layout;
  std::int32_t max_blocks = 0;
  std::vector<std::int32_t> table, sequence, position;
  Tensor k_cache, v_cache, q;

  Problem(DType dtype, std::int64_t hq, std::int64_t hk, std::int64_t d, std::int32_t block_tokens,
          const std::vector<Rows>& sequences, std::int32_t spare_blocks = 0)
      : query_heads(hq), kv_heads(hk), dim(d) {
    layout.block_tokens = block_tokens;
    for (const Rows& rows : sequences) {
      max_blocks = std::max(max_blocks, layout.blocks_for(rows.length) + spare_blocks);
      layout.num_blocks += layout.blocks_for(rows.length);
    }
    std::vector<std::int32_t> order;
    for (int i = 0; i < layout.num_blocks; ++i) order.push_back(i);
    std::shuffle(order.begin(), order.end(), generator());
    std::size_t next = 0;
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const Rows& rows = sequences[s];
      for (int b = 0; b < max_blocks; ++b) {
        table.push_back(b < layout.blocks_for(rows.length) ? order[next++] : -1);
      }
      for (int i = rows.length - rows.count; i < rows.length; ++i) add(s, i);
    }
    k_cache = random_tensor({layout.num_slots(), hk, d}, dtype);
    v_cache = random_tensor({layout.num_slots(), hk, d}, dtype);
    for (std::size_t s = 0; s < sequences.size(); ++s) spoil_unused(s, sequences[s].length);
    resize_q(dtype);
  }

  void add(std::size_t s, int at) {
    sequence.push_back(static_cast<std::int32_t>(s));
    position.push_back(at);
  }
  void resize_q(DType dtype) { q = random_tensor({rows(), query_heads, dim}, dtype, 2.0f); }

  void spoil_unused(std::size_t s, int length) const {
    const std::int32_t* blocks = table.data() + s * static_cast<std::size_t>(max_blocks);
    const int end = layout.blocks_for(length) * layout.block_tokens;
    for (int p = length; p < end; ++p) {
      for (const Tensor* cache : {&k_cache, &v_cache}) {
        const TensorView slot = cache->view().slice(layout.slot(blocks, p), 1);
        std::memset(slot.data, 0xFF, slot.bytes());
      }
    }
  }

  std::int64_t rows() const { return static_cast<std::int64_t>(sequence.size()); }

  // The rows [begin, begin + count), by either backend's tensors.
  template <class Put>
  void run(Ops& ops, Put put, std::int64_t begin, std::int64_t count, RowKind kind,
           const TensorView& k, const TensorView& v, const TensorView& queries,
           const TensorView& out) const {
    const auto sequences = static_cast<std::int64_t>(table.size()) / max_blocks;
    const Tensor seq =
        put(integers({sequence.begin() + begin, sequence.begin() + begin + count}, {count}));
    const Tensor pos =
        put(integers({position.begin() + begin, position.begin() + begin + count}, {count}));
    const Tensor blocks = put(integers(table, {sequences, max_blocks}));
    const Ops::AttentionBatch batch = {seq, pos, blocks, layout, kind};
    ops.plan_attention(queries.slice(begin, count), k, batch);
    ops.attention(queries.slice(begin, count), k, v, batch, out);
    ops.device().synchronize();  // before the tensors above go
  }

  Tensor reference() const {
    CpuBackend ops;
    const Tensor out = zeros({rows(), query_heads, dim});
    run(
        *ops.ops, [](const Tensor& host) { return copy_of(host); }, 0, rows(), RowKind::kPrompt,
        as_f32(k_cache), as_f32(v_cache), as_f32(q), out);
    return out;
  }
};

// A problem whose tensors are on the GPU.
struct OnGpu {
  OnGpu(CudaBackend& backend, const Problem& of)
      : gpu(backend),
        problem(of),
        k(gpu.put(of.k_cache)),
        v(gpu.put(of.v_cache)),
        q(gpu.put(of.q)) {}

  Tensor run(std::int64_t begin, std::int64_t count, RowKind kind = RowKind::kPrompt) const {
    const Tensor out =
        gpu.poisoned({count, problem.query_heads, problem.dim}, problem.q.view().dtype);
    problem.run(
        *gpu.ops, [this](const Tensor& host) { return gpu.put(host); }, begin, count, kind, k, v, q,
        out);
    return gpu.get(out);
  }
  Tensor run() const { return run(0, problem.rows()); }

  CudaBackend& gpu;
  const Problem& problem;
  Tensor k, v, q;
};

double allowed(DType dtype) { return dtype == DType::kF32 ? 2e-6 : 6e-3; }

struct Shape3 {
  std::int64_t query_heads, kv_heads, dim;
  std::int32_t block_tokens;
};

// The real one first; head sizes and groups with a kernel of their own, then others.
std::vector<Shape3> shapes() {
  return all_or_few<Shape3>({{24, 8, 128, 16},
                             {4, 2, 64, 16},
                             {8, 2, 128, 16},
                             {6, 3, 64, 16},
                             {4, 4, 64, 5},
                             {3, 1, 128, 64},
                             {8, 1, 64, 16},
                             {16, 1, 48, 3},
                             {4, 1, 20, 5},
                             {2, 1, 256, 16},
                             {12, 1, 128, 7}},
                            {{6, 2, 128, 16}, {4, 2, 64, 16}, {3, 1, 128, 64}, {4, 1, 20, 5}});
}

std::vector<Rows> ragged(std::vector<int> lengths, int most) {
  std::vector<Rows> rows;
  for (const int length : lengths) rows.push_back({length, std::min(length, uniform(1, most))});
  return rows;
}

}  // namespace

TEST("cuda attention of decode steps is the CPU's within rounding") {
  CudaBackend gpu;
  for (const DType dtype : kActivationTypes) {
    for (const Shape3& s : shapes()) {
      const Problem problem(dtype, s.query_heads, s.kv_heads, s.dim, s.block_tokens,
                            ragged({1, 2, 16, 31, 127, 128, 129, 300, 700, 64}, 1), 3);
      const OnGpu on_gpu(gpu, problem);
      const Tensor expected = problem.reference();
      EXPECT(relative_error(on_gpu.run(), expected) < allowed(dtype));
      EXPECT(relative_error(on_gpu.run(0, problem.rows(), RowKind::kDecode), expected) <
             allowed(dtype));
    }
  }
}

TEST("cuda attention of prompts and lone rows is the CPU's within rounding") {
  CudaBackend gpu;
  for (const DType dtype : kActivationTypes) {
    for (const Shape3& s : shapes()) {
      const Problem problem(dtype, s.query_heads, s.kv_heads, s.dim, s.block_tokens,
                            ragged({1, 90, 200, 131, 65, 40, 3, 17}, 150));
      const OnGpu on_gpu(gpu, problem);
      EXPECT(relative_error(on_gpu.run(), problem.reference()) < allowed(dtype));
    }
    const Problem mixed(dtype, 24, 8, 128, 16, {{300, 1}, {400, 1}, {260, 260}, {9, 1}, {70, 2}});
    EXPECT(relative_error(OnGpu(gpu, mixed).run(), mixed.reference()) < allowed(dtype));
  }
}

// Rows of one sequence in both ranges of a step (StepBatch): text 20..29 before audio 0..19.
TEST("cuda attention takes rows of one sequence in any order") {
  CudaBackend gpu;
  for (const DType dtype : kActivationTypes) {
    Problem problem(dtype, 6, 2, 64, 16, {{30, 10}, {50, 1}});
    for (int p = 0; p < 20; ++p) problem.add(1, p);
    for (int p = 0; p < 20; ++p) problem.add(0, p);
    problem.resize_q(dtype);
    EXPECT(relative_error(OnGpu(gpu, problem).run(), problem.reference()) < allowed(dtype));
  }
}

TEST("cuda attention over long contexts is the CPU's within rounding") {
  CudaBackend gpu;
  for (const DType dtype : kActivationTypes) {
    const Problem problem(
        dtype, 6, 2, 128, 16,
        all_or_few<Rows>({{4100, 1}, {2049, 1}, {2048, 1}, {1500, 40}}, {{2049, 1}, {300, 40}}));
    EXPECT(relative_error(OnGpu(gpu, problem).run(), problem.reference()) < allowed(dtype));
  }
}

TEST("cuda attention gives a decode row the same bits alone and in any batch") {
  CudaBackend gpu;
  for (const DType dtype : kActivationTypes) {
    std::vector<Rows> rows = ragged({700, 5, 129, 2600, 1024}, 1);
    for (int i = 0; i < (few_only() ? 70 : 200); ++i) rows.push_back({uniform(1, 200), 1});
    for (const std::int32_t block_tokens : all_or_few<std::int32_t>({16, 48, 24}, {48})) {
      const Problem problem(dtype, 24, 8, 128, block_tokens, rows, 5);
      const OnGpu on_gpu(gpu, problem);
      const Tensor all = on_gpu.run(0, problem.rows(), RowKind::kDecode);
      for (const std::int64_t count : all_or_few<std::int64_t>({1, 3, 16, 64}, {64})) {
        for (std::int64_t begin = 0; begin + count <= 70; begin += count) {
          EXPECT(same_bits(on_gpu.run(begin, count, RowKind::kDecode),
                           all.view().slice(begin, count)));
        }
      }
    }
  }
}

TEST("cuda attention gives a prompt row the same bits beside any others") {
  CudaBackend gpu;
  for (const DType dtype : kActivationTypes) {
    const Problem problem(dtype, 24, 8, 128, 16, {{190, 190}, {300, 1}, {150, 50}});
    const OnGpu on_gpu(gpu, problem);
    const Tensor all = on_gpu.run();
    for (const std::int64_t begin : all_or_few<std::int64_t>({0, 2, 33, 64, 100}, {33})) {
      for (const std::int64_t count : all_or_few<std::int64_t>({1, 2, 31, 64, 90}, {1, 31})) {
        EXPECT(same_bits(on_gpu.run(begin, count), all.view().slice(begin, count)));
      }
    }
  }
}

TEST("cuda attention gives zeros for padding rows") {
  CudaBackend gpu;
  for (const DType dtype : kActivationTypes) {
    Problem problem(dtype, 24, 8, 128, 16, {{200, 1}, {300, 1}, {5, 1}});
    const Tensor expected = problem.reference();
    std::memset(expected.as<float>() + 24 * 128, 0, 24 * 128 * sizeof(float));
    problem.position[1] = -1;
    const OnGpu on_gpu(gpu, problem);
    EXPECT(relative_error(on_gpu.run(0, 3, RowKind::kDecode), expected) < allowed(dtype));
  }
}

TEST("cuda attention gives the same bits again and again") {
  CudaBackend gpu;
  const Problem problem(DType::kBF16, 24, 8, 128, 16, ragged({700, 5, 129, 600, 1024}, 1));
  const OnGpu on_gpu(gpu, problem);
  const Tensor first = on_gpu.run(0, problem.rows(), RowKind::kDecode);
  for (int i = 0; i < (few_only() ? 2 : 20); ++i)
    EXPECT(same_bits(on_gpu.run(0, problem.rows(), RowKind::kDecode), first));
}
