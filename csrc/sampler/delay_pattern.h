// The delay pattern (specification 5) between time-aligned frames and decoder columns. With codes
// x[k, j] of codebook k and frame j, x[k, j] stands in column j + k + 1; column 0 is all BOS.
// Ids: codes are [0, codebook_size), BOS is codebook_size, EOS is codebook_size + 1.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace higgs_rt {

// codes [num_codebooks, T] row-major, T >= 0, each in [0, codebook_size) -> columns
// [T + num_codebooks + 1, num_codebooks], the all-BOS and the all-EOS column included.
// Throws kInvalidArgument that names a bad code and its place.
std::vector<std::int32_t> apply_delay(std::span<const std::int32_t> codes,
                                      std::int32_t num_codebooks, std::int32_t codebook_size);

// Turns columns back into frames while they are generated. Frame j is complete with column
// j + num_codebooks, and final: under both stream rules the only complete frame that is not real is
// the one that the stream's last column would complete. (kFirstEos: a stream whose codebook 0 ends
// in column E ends with column E + K - 1, and frames j < E - 1 are real. kTransformers: frames stop
// before the all-EOS column.) A frame that still holds a BOS or EOS id, which a misbehaving
// codebook can leave, is dropped and counted (6.5).
class FrameAssembler {
 public:
  FrameAssembler(std::int32_t num_codebooks, std::int32_t codebook_size);

  // Columns [num_codebooks] in order, from column 0 (all BOS) on. `ended`: the stream rule ended
  // the stream with this column (SampledRow::finished); a length stop is no such end. Returns
  // whether a frame became available: read it by frame(). Throws kInvalidArgument for a wrong
  // size, an id out of range, or a column after the end.
  bool push(std::span<const std::int32_t> column, bool ended);

  // [num_codebooks] codes in [0, codebook_size), valid until the next push().
  std::span<const std::int32_t> frame() const { return frame_; }

  std::int32_t num_columns() const { return num_columns_; }  // pushed
  std::int32_t num_frames() const { return num_frames_; }    // given out
  std::int32_t num_dropped() const { return num_dropped_; }

 private:
  std::int32_t num_codebooks_;
  std::int32_t codebook_size_;
  std::vector<std::int32_t> frame_;
  std::vector<std::int32_t> recent_;  // ring of the last num_codebooks columns
  std::int32_t num_columns_ = 0;
  std::int32_t num_frames_ = 0;
  std::int32_t num_dropped_ = 0;
  bool ended_ = false;
};

struct RevertedFrames {
  std::vector<std::int32_t> codes;  // [num_codebooks, num_frames] row-major
  std::int32_t num_frames = 0;
  std::int32_t num_dropped = 0;
};

// A whole stream at once: columns [n, num_codebooks], column 0 all BOS. `ended`: the last one was
// the stream rule's end. Throws as FrameAssembler::push().
RevertedFrames revert_delay(std::span<const std::int32_t> columns, std::int32_t num_codebooks,
                            std::int32_t codebook_size, bool ended);

}  // namespace higgs_rt
