#include "ops/cuda/next_weights.h"

#include <algorithm>

namespace higgs_rt {

namespace {

constexpr std::int64_t kLine = 128;

bool readable(const TensorView& view) {
  return view && view.size() != 0 && reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0;
}

}  // namespace

void NextWeights::add(const TensorView& weight, const TensorView& beside) {
  if (readable(weight)) groups_.push_back({weight, readable(beside) ? beside : TensorView{}});
}

ReadAhead NextWeights::take(std::int64_t bytes) {
  ReadAhead result;
  result.tiles = settings_.tiles;
  const std::int64_t piece = settings_.piece;
  int used = 0;
  for (const Group& group : groups_) {
    const int views = group.beside ? 2 : 1;
    const std::int64_t share = bytes / views;
    for (const TensorView* view : {&group.weight, &group.beside}) {
      if (!*view || used == ReadAhead::kRanges) continue;
      const auto size = static_cast<std::int64_t>(view->bytes());
      const auto requests = static_cast<std::uint32_t>(std::min(share, size) / piece);
      result.range[used++] = {view->data, requests, settings_.piece, settings_.piece};
      bytes -= requests * piece;
    }
  }
  groups_.clear();
  return result;
}

ReadAhead NextWeights::take_rows(std::int64_t bytes) {
  const ReadAhead result = groups_.empty() ? ReadAhead{} : rows_of(groups_.front().weight, bytes);
  groups_.clear();
  return result;
}

ReadAhead NextWeights::rows_of(const TensorView& weight, std::int64_t bytes) const {
  ReadAhead result;
  const std::int64_t rows = weight.dim(0), row = static_cast<std::int64_t>(weight.bytes()) / rows;
  const std::int64_t part = std::min(bytes / rows / kLine * kLine, row);
  if (part == 0 || row % 16 != 0) return result;
  result.range[0] = {weight.data, static_cast<std::uint32_t>(rows),
                     static_cast<std::uint32_t>(part), static_cast<std::uint32_t>(row)};
  return result;
}

}  // namespace higgs_rt
