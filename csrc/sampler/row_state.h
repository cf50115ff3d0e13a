// Everything that shapes the columns of one request, as plain data in host or device memory.
#pragma once

#include <cstdint>

#include "higgs_rt/types.h"

namespace higgs_rt {

inline constexpr std::int32_t kMaxCodebooks = 16;
inline constexpr std::int32_t kMaxCodebookVocab = 4096;  // portable_math.h: sums fit 64 bits

// Where a stream stands under its rule (stream_rule.h).
struct StreamState {
  std::int32_t column = 0;      // index of the last column; column 0 is the synthetic all-BOS one
  std::int32_t wind = -1;       // kFirstEos: columns still to come, -1 before the first EOS
  std::int32_t after_eos = -1;  // kTransformers: columns since the first with an EOS, -1: none yet
};

struct RowState {
  SamplingParams params;
  StreamState stream;
  bool finished = false;
  bool failed = false;
  // RAS window, one ring per codebook: column number n (history and column 0 included) is in slot
  // n % ras_window. `pushed` counts the columns written so far.
  std::int32_t pushed = 0;
  std::uint32_t turn = 0;  // CUDA: steps that had this row, and so where the next column goes
  std::int16_t ring[kMaxCodebooks][kMaxRasWindow] = {};
};

}  // namespace higgs_rt
