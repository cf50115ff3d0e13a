// The rows that each layer of the codec decoder keeps for a window of an utterance.
#pragma once

#include <cstdint>
#include <vector>

namespace higgs_rt {

// For `frames` frames that are wanted; times and frames count from the first of them. A layer keeps
// what the wanted samples need of it (receptive_field.h) and, after up-sampling, some rows more at
// both ends, whose numbers nothing needs.
struct CodecWindow {
  struct Block {
    std::int32_t in_rows = 0;    // rows before the block, per item
    std::int32_t in_begin = 0;   // the first of them that the block takes
    std::int32_t rows = 0;       // rows that it takes; it makes rows * ratio
    std::int32_t out_begin = 0;  // time of the first row that it makes
    std::int32_t rate = 0;       // rows made per frame
  };
  std::int32_t frames = 0;
  std::int32_t begin = 0;       // first frame of the window, <= 0
  std::int32_t rows = 0;        // frames of the window
  std::vector<Block> blocks;    // one per upsampling ratio
  std::int32_t last_begin = 0;  // row of the first tap of sample 0 of the last convolution
};

CodecWindow codec_window(const std::vector<std::int32_t>& ratios, std::int32_t frames);

}  // namespace higgs_rt
