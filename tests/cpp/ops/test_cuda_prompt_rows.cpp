// Rows of prompts have the same bits whatever the other rows. Needs a build with CUDA and a GPU.
#include "cuda_backend.h"
#include "few.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

// Row r of prompts of any number of rows beside row r of the longest one.
void compare_prompt_rows(CudaBackend& gpu, const Shape& shape, DType out_dtype, bool accumulate) {
  const std::int64_t most = few_only() ? 100 : 1100;
  const Tensor weight = gpu.put(random_tensor(shape, DType::kBF16));
  const Tensor x = gpu.put(random_tensor({most, shape[1]}, DType::kBF16));
  const Tensor start = accumulate ? random_tensor({most, shape[0]}) : zeros({most, shape[0]});
  const auto product = [&](std::int64_t begin, std::int64_t rows) {
    const Tensor out = accumulate ? gpu.put(start.view().slice(begin, rows))
                                  : gpu.poisoned({rows, shape[0]}, out_dtype);
    gpu->linear(x.view().slice(begin, rows), weight, out, accumulate, RowKind::kPrompt);
    return gpu.get(out);
  };
  const Tensor all = product(0, most);
  for (const std::int64_t rows : all_or_few<std::int64_t>(
           {1, 2, 5, 8, 16, 17, 24, 33, 64, 100, 128, 200, 300, 600, 1000}, {1, 33})) {
    for (const std::int64_t begin : {std::int64_t{3}, most - rows}) {
      const bool same = same_bits(product(begin, rows), all.view().slice(begin, rows));
      if (!same) std::cerr << "rows " << rows << " weight " << to_string(shape) << '\n';
      EXPECT(same);
    }
  }
}

}  // namespace

TEST("cuda linear gives a prompt row the same bits for every number of rows") {
  CudaBackend gpu;
  for (const Shape& shape : {Shape{200, 320}, Shape{96, 3072}, Shape{40, 200}, Shape{768, 256}}) {
    compare_prompt_rows(gpu, shape, DType::kBF16, false);
    compare_prompt_rows(gpu, shape, DType::kF32, true);
  }
  if (few_only()) return;
  compare_prompt_rows(gpu, {5120, 3072}, DType::kBF16, false);
  compare_prompt_rows(gpu, {16384, 3072}, DType::kBF16, false);
  compare_prompt_rows(gpu, {3072, 3072}, DType::kF32, true);
  compare_prompt_rows(gpu, {3072, 8192}, DType::kF32, true);
  compare_prompt_rows(gpu, {8208, 3072}, DType::kF32, false);
}
