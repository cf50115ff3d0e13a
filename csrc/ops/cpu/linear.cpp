#include <algorithm>

#include "core/check.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

namespace {

constexpr std::size_t kPackedRank = 5;
constexpr std::int64_t kPanel = kPanelStrips * kStrip;  // outputs
// A copy of what is read from main memory in each step would cost memory and save nothing; and a
// chain of multiply-adds that is much longer would lose precision (kernels/linear_panels.h).
constexpr std::size_t kMaxPackedBytes = std::size_t{4} << 20;
constexpr std::int64_t kMaxPackedInputs = 2048;

Shape packed_shape(std::int64_t outputs, std::int64_t inputs) {
  return {(outputs + kPanel - 1) / kPanel, inputs / 2, kPanelStrips, kStrip, 2};
}

// A weight takes as long to fetch as a few multiply-adds, however few rows it meets.
std::int64_t cost_of(const LinearArgs& args, std::int64_t outputs) {
  return outputs * args.inputs * std::max<std::int64_t>(args.rows, 4);
}

}  // namespace

Tensor CpuOps::pack(const TensorView& weight) {
  expect_rank("pack", "weight", weight, 2);
  const std::int64_t outputs = weight.dim(0), inputs = weight.dim(1);
  const bool suits = weight.dtype == DType::kBF16 && inputs % 2 == 0 &&
                     inputs <= kMaxPackedInputs && weight.bytes() <= kMaxPackedBytes;
  if (kernels_.linear_panels == nullptr || !suits) return {};
  Tensor packed(device_, DType::kBF16, packed_shape(outputs, inputs));
  const std::uint16_t* from = bf16_bits(weight);
  auto* to = &packed.as<BF16>()->bits;
  for (std::int64_t first = 0; first < outputs; first += kPanel) {
    for (std::int64_t i = 0; i < inputs; i += 2) {
      for (std::int64_t o = first; o < first + kPanel; ++o, to += 2) {
        to[0] = o < outputs ? from[o * inputs + i] : std::uint16_t{0};
        to[1] = o < outputs ? from[o * inputs + i + 1] : std::uint16_t{0};
      }
    }
  }
  return packed;
}

void CpuOps::linear_packed(const LinearArgs& args, const TensorView& weight) {
  expect("linear", "packed weight", weight, DType::kBF16, packed_shape(args.outputs, args.inputs));
  check_internal(kernels_.linear_panels != nullptr, "linear",
                 "packed weight: expected one of these kernels' pack(), got another's");
  if (args.rows == 0) return;
  const std::int64_t strips = (args.outputs + kStrip - 1) / kStrip;
  parallel(strips, cost_of(args, kStrip),
           [&](std::int64_t begin, std::int64_t end) { kernels_.linear_panels(args, begin, end); });
}

void CpuOps::linear(const TensorView& x, const TensorView& weight, const TensorView& out,
                    bool accumulate, RowKind) {
  expect_rank("linear", "x", x, 2);
  expect_rank("linear", "out", out, 2);
  const std::int64_t rows = x.dim(0), inputs = x.dim(1), outputs = out.dim(1);
  expect("linear", "x", x, DType::kF32, {rows, inputs});
  expect("linear", "out", out, DType::kF32, {rows, outputs});
  const LinearArgs args{x.as<float>(), weight.data, out.as<float>(), rows,
                        inputs,        outputs,     accumulate,      &far_};
  if (weight.shape.size() == kPackedRank) return linear_packed(args, weight);
  expect_weight("linear", "weight", weight, {outputs, inputs});
  if (rows == 0) return;
  const auto kernel = weight.dtype == DType::kF32 ? kernels_.linear_f32 : kernels_.linear_bf16;
  // Outputs go by eight, the height of the tiles.
  constexpr std::int64_t kTile = 8;
  const std::int64_t tiles = (outputs + kTile - 1) / kTile;
  parallel(tiles, cost_of(args, kTile), [&](std::int64_t begin, std::int64_t end) {
    kernel(args, begin * kTile, std::min(end * kTile, outputs));
  });
}

}  // namespace higgs_rt
