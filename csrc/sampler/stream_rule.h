// How a stream of columns begins, winds down and ends, for both rules (specification 6.1 and 6.3).
// Written for any number of codebooks; BOS and EOS are the last two ids of a codebook.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "sampler/row_state.h"

namespace higgs_rt {

// The next column: codebooks [0, first) are EOS, [first, last) are sampled, [last, K) are BOS.
struct LiveRange {
  std::int32_t first = 0;
  std::int32_t last = 0;
};

HIGGS_HOST_DEVICE inline std::int32_t bos_id(std::int32_t codebook_vocab) {
  return codebook_vocab - 2;
}
HIGGS_HOST_DEVICE inline std::int32_t eos_id(std::int32_t codebook_vocab) {
  return codebook_vocab - 1;
}

// Which codebooks of the next column are sampled. Column c keeps codebooks below c (the ramp).
// Under 6.1 forced ids replace sampled ones after sampling and under 6.3 the logits are masked
// before it; as draws are counter-based and RAS never changes a forced id, both come to the same.
HIGGS_HOST_DEVICE inline LiveRange live_range(const StreamState& state, StreamRule rule,
                                              std::int32_t num_codebooks) {
  const std::int32_t column = state.column + 1;
  LiveRange live;
  live.last = column < num_codebooks ? column : num_codebooks;
  if (rule == StreamRule::kFirstEos) {
    if (state.wind >= 0) live.first = num_codebooks - state.wind;
  } else if (state.after_eos >= 0) {
    live.first = state.after_eos + 1;
  }
  if (live.first > live.last) live.first = live.last;
  return live;
}

// Completes the next column: `ids` holds the sampled ids of the live codebooks and receives all of
// them. Returns whether this column is the stream's last.
HIGGS_HOST_DEVICE inline bool close_column(StreamState& state, StreamRule rule,
                                           std::int32_t num_codebooks, std::int32_t codebook_vocab,
                                           std::int32_t* ids) {
  const std::int32_t eos = eos_id(codebook_vocab);
  const LiveRange live = live_range(state, rule, num_codebooks);
  for (std::int32_t k = 0; k < live.first; ++k) ids[k] = eos;
  for (std::int32_t k = live.last; k < num_codebooks; ++k) ids[k] = bos_id(codebook_vocab);
  ++state.column;

  std::int32_t first_eos = 0;
  while (first_eos < num_codebooks && ids[first_eos] != eos) ++first_eos;

  if (rule == StreamRule::kFirstEos) {
    if (state.wind >= 0) {
      --state.wind;
    } else if (first_eos < num_codebooks) {
      for (std::int32_t k = 0; k < first_eos; ++k) ids[k] = eos;
      state.wind = num_codebooks - 1 - first_eos;
    }
    return state.wind == 0;
  }
  bool all_eos = true;
  for (std::int32_t k = 0; k < num_codebooks; ++k) all_eos = all_eos && ids[k] == eos;
  if (state.after_eos >= 0 || first_eos < num_codebooks) ++state.after_eos;
  return all_eos;
}

}  // namespace higgs_rt
