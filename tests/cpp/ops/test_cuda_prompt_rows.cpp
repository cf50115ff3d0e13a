// Rows of prompts have the same bits whatever the other rows, and so have decode rows among more
// than 128, which take the same products. Needs a build with CUDA and a GPU.
#include <utility>

#include "cuda_backend.h"
#include "few.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

constexpr std::int64_t kMostWide = 128;  // decode rows that round in another way

// The kinds that so many rows may be of. Few: one of them.
std::vector<RowKind> kinds_of(std::int64_t rows) {
  if (rows <= kMostWide) return {RowKind::kPrompt};
  if (few_only()) return {RowKind::kDecode};
  return {RowKind::kPrompt, RowKind::kDecode};
}

struct RowCounts {
  std::int64_t most;
  std::vector<std::int64_t> some;
};

// Few: one for each form of prompt_add.cu, all own products, as the stand-in for cuBLASLt
// (plain_matmul.cu) has other bits.
RowCounts row_counts() {
  if (few_only()) return {720, {1, 33, 112, 144, 160, 176, 192, 208, 224, 262, 400, 560}};
  return {1100, {1,   2,   5,   8,   16,  17,  24,  33,  64,  100, 128, 144, 145, 160, 176,
                 192, 200, 208, 209, 224, 225, 240, 256, 262, 288, 300, 524, 600, 1000}};
}

// Those of more than 4096 inputs alone.
RowCounts row_counts_of_many_inputs() { return {560, {240, 256}}; }

// Row r of prompts of any number of rows beside row r of the longest one.
void compare_prompt_rows(CudaBackend& gpu, const Shape& shape, DType out_dtype, bool accumulate,
                         const RowCounts& counts = row_counts()) {
  const std::int64_t most = counts.most;
  const Tensor weight = gpu.put(random_tensor(shape, DType::kBF16));
  const Tensor x = gpu.put(random_tensor({most, shape[1]}, DType::kBF16));
  const Tensor start = accumulate ? random_tensor({most, shape[0]}) : zeros({most, shape[0]});
  const auto product = [&](std::int64_t begin, std::int64_t rows, RowKind kind) {
    const Tensor out = accumulate ? gpu.put(start.view().slice(begin, rows))
                                  : gpu.poisoned({rows, shape[0]}, out_dtype);
    gpu->linear(x.view().slice(begin, rows), weight, out, accumulate, kind);
    return gpu.get(out);
  };
  const Tensor all = product(0, most, RowKind::kPrompt);
  for (const std::int64_t rows : counts.some) {
    for (const std::int64_t begin : all_or_few<std::int64_t>({3, most - rows}, {most - rows})) {
      for (const RowKind kind : kinds_of(rows)) {
        const bool same = same_bits(product(begin, rows, kind), all.view().slice(begin, rows));
        if (!same) std::cerr << "rows " << rows << " weight " << to_string(shape) << '\n';
        EXPECT(same);
      }
    }
  }
}

}  // namespace

TEST("cuda linear gives a prompt row the same bits for every number of rows") {
  CudaBackend gpu;
  for (const Shape& shape : all_or_few<Shape>({{200, 320}, {96, 3072}, {40, 200}, {768, 256}},
                                              {{200, 320}, {40, 200}})) {
    compare_prompt_rows(gpu, shape, DType::kBF16, false);
    compare_prompt_rows(gpu, shape, DType::kF32, true);
  }
  const std::int64_t inputs = fewest_only() ? 1096 : 256;
  if (few_only()) {
    compare_prompt_rows(gpu, {3072, inputs}, DType::kF32, true);
    return compare_prompt_rows(gpu, {264, 4160}, DType::kF32, true, row_counts_of_many_inputs());
  }
  compare_prompt_rows(gpu, {5120, 3072}, DType::kBF16, false);
  compare_prompt_rows(gpu, {16384, 3072}, DType::kBF16, false);
  compare_prompt_rows(gpu, {3072, 3072}, DType::kF32, true);
  compare_prompt_rows(gpu, {3072, 8192}, DType::kF32, true);
  compare_prompt_rows(gpu, {8208, 3072}, DType::kF32, false);
}

namespace {

// The FFN's first half of `count` rows of x from `begin` on.
Tensor activated(CudaBackend& gpu, const TensorView& x, const TensorView& norm,
                 const TensorView& weight, std::int64_t begin, std::int64_t count,
                 RowKind kind = RowKind::kPrompt) {
  const std::int64_t width = weight.dim(0) / 2, size = weight.dim(1);
  const Tensor normed = gpu.poisoned({count, size}, DType::kBF16);
  const Tensor up = gpu.poisoned({count, width}, DType::kBF16);
  const Tensor out = gpu.poisoned({count, width}, DType::kBF16);
  gpu->ffn_input(x.slice(begin, count),
                 {norm, 1e-5f, weight.first(width), weight.slice(width, width), normed, up, kind},
                 out);
  return gpu.get(out);
}

struct Heads {
  std::int64_t query, kv, size;
};
constexpr std::int64_t kDim = 128, kPositions = 50;

struct Projected {
  Tensor q, keys, values;  // rows in order: their slots are their numbers
};

// Queries, keys and values of `count` rows of x from `begin` on.
Projected projected(CudaBackend& gpu, const Heads& heads, const TensorView& x,
                    const TensorView& norm, const TensorView& weight, const TensorView& rope,
                    std::int64_t begin, std::int64_t count, RowKind kind = RowKind::kPrompt) {
  std::vector<std::int32_t> position, slot;
  for (std::int64_t r = begin; r < begin + count; ++r) {
    position.push_back(static_cast<std::int32_t>(r % kPositions));
    slot.push_back(static_cast<std::int32_t>(r - begin));
  }
  const Tensor positions = gpu.put(integers(position, {count}));
  const Tensor slots = gpu.put(integers(slot, {count}));
  const Shape kv = {count, heads.kv, kDim};
  const Tensor normed = gpu.poisoned({count, heads.size}, DType::kBF16);
  const Tensor k = gpu.poisoned(kv, DType::kBF16), v = gpu.poisoned(kv, DType::kBF16);
  const Tensor q = gpu.poisoned({count, heads.query, kDim}, DType::kBF16);
  const Tensor keys = gpu.poisoned(kv, DType::kBF16), values = gpu.poisoned(kv, DType::kBF16);
  const std::int64_t q_dim = heads.query * kDim, kv_dim = heads.kv * kDim;
  gpu->attention_input(x.slice(begin, count),
                       {.num_text_rows = kind == RowKind::kPrompt ? count : 0,
                        .text_norm = norm,
                        .audio_norm = norm,
                        .eps = 1e-5f,
                        .q_weight = weight.first(q_dim),
                        .k_weight = weight.slice(q_dim, kv_dim),
                        .v_weight = weight.slice(q_dim + kv_dim, kv_dim),
                        .position = positions,
                        .slot = slots,
                        .rope = rope,
                        .normed = normed,
                        .k = k,
                        .v = v,
                        .kind = kind},
                       q, keys, values);
  return {gpu.get(q), gpu.get(keys), gpu.get(values)};
}

// Few: with the most rows, one for each form of the kernels (prompt_swiglu.cu, prompt_qkv.cu).
std::vector<std::int64_t> some_row_counts(std::vector<std::int64_t> few) {
  return all_or_few<std::int64_t>(
      {1,   5,   33,  48,  80,  81,  112, 131, 144, 145, 160, 176,  177,
       192, 200, 224, 240, 256, 262, 272, 273, 393, 600, 700, 1048, 1441},
      std::move(few));
}

}  // namespace

TEST("cuda ffn_input gives a prompt row the same bits for every number of rows") {
  CudaBackend gpu;
  const std::int64_t most = few_only() ? 272 : 2200;
  for (const Shape& shape :
       all_few_or_fewest<Shape>({{2 * 72, 264}, {2 * 1000, 512}, {2 * 8192, 3072}},
                                {{2 * 4288, 264}}, {{2 * 4288, 1160}})) {
    const Tensor x = gpu.put(random_tensor({most, shape[1]}, DType::kF32, 3.0f));
    const Tensor norm = gpu.put(random_tensor({shape[1]}, DType::kBF16));
    const Tensor weight = gpu.put(random_tensor(shape, DType::kBF16));
    const Tensor all = activated(gpu, x, norm, weight, 0, most);
    for (const std::int64_t rows : some_row_counts({33, 80, 112, 144, 176, 208, 224, 240, 256})) {
      for (const RowKind kind : kinds_of(rows)) {
        const Tensor some = activated(gpu, x, norm, weight, most - rows, rows, kind);
        const bool same = same_bits(some, all.view().slice(most - rows, rows));
        if (!same) std::cerr << "rows " << rows << " weight " << to_string(shape) << '\n';
        EXPECT(same);
      }
    }
  }
}

TEST("cuda attention_input gives a prompt row the same bits for every number of rows") {
  CudaBackend gpu;
  const std::int64_t most = few_only() ? 720 : 2200;
  for (const Heads& heads :
       all_few_or_fewest<Heads>({{3, 1, 264}, {24, 8, 3072}}, {{24, 8, 264}}, {{24, 8, 1160}})) {
    const std::int64_t outputs = (heads.query + 2 * heads.kv) * kDim;
    const Tensor x = gpu.put(random_tensor({most, heads.size}, DType::kF32, 3.0f));
    const Tensor norm = gpu.put(random_tensor({heads.size}, DType::kBF16));
    const Tensor weight = gpu.put(random_tensor({outputs, heads.size}, DType::kBF16));
    const Tensor rope = gpu.put(random_tensor({kPositions, kDim / 2, 2}));
    const Projected all = projected(gpu, heads, x, norm, weight, rope, 0, most);
    for (const std::int64_t rows :
         some_row_counts({33, 112, 144, 160, 176, 208, 240, 256, 420, 500, 600, 660})) {
      for (const RowKind kind : kinds_of(rows)) {
        const Projected some =
            projected(gpu, heads, x, norm, weight, rope, most - rows, rows, kind);
        const bool same = same_bits(some.q, all.q.view().slice(most - rows, rows)) &&
                          same_bits(some.keys, all.keys.view().slice(most - rows, rows)) &&
                          same_bits(some.values, all.values.view().slice(most - rows, rows));
        if (!same) std::cerr << "rows " << rows << " inputs " << heads.size << '\n';
        EXPECT(same);
      }
    }
  }
}
