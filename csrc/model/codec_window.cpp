#include "model/codec_window.h"

#include "model/receptive_field.h"

namespace higgs_rt {

namespace {

std::int32_t narrow(std::int64_t value) { return static_cast<std::int32_t>(value); }

}  // namespace

CodecWindow codec_window(const std::vector<std::int32_t>& ratios, std::int32_t frames) {
  std::int64_t hop = 1;
  for (const std::int32_t ratio : ratios) hop *= ratio;
  const std::vector<TimeRange> needed = needed_inputs(ratios, {0, frames * hop - 1});
  std::int64_t begin = needed[0].first, rows = needed[0].last - begin + 1, rate = 1;
  CodecWindow window;
  window.frames = frames;
  window.begin = narrow(begin);
  window.rows = narrow(rows);
  for (std::size_t i = 0; i < ratios.size(); ++i) {
    const TimeRange& cut = needed[1 + i];
    CodecWindow::Block block;
    block.in_rows = narrow(rows);
    block.in_begin = narrow(cut.first - begin);
    block.rows = narrow(cut.last - cut.first + 1);
    begin = cut.first * ratios[i];
    rows = block.rows * ratios[i];
    rate *= ratios[i];
    block.out_begin = narrow(begin);
    block.rate = narrow(rate);
    window.blocks.push_back(block);
  }
  window.last_begin = narrow(needed.back().first - begin);
  return window;
}

}  // namespace higgs_rt
