// The codec of a runtime: whole and seam-exact partial decoding, one caller at a time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "model/codec_decoder.h"
#include "ops/ops.h"

namespace higgs_rt {

class Codec {
 public:
  // Frames of one block, besides their context: bounds memory and waiting. Of answers that come
  // whole up to twice as many (WaveformStage).
  static constexpr std::int32_t kBlockFrames = 64;

  // Frames of a stream with their context, and what becomes of them.
  struct Block {
    std::vector<std::int32_t> codes;  // [num_codebooks, num_frames]
    std::int32_t num_frames = 0;
    std::int32_t begin = 0, end = 0;  // the frames within
    bool first = false;               // begins its stream
    std::vector<float> pcm;           // [(end - begin) * samples_per_frame], in [-1, 1]
    std::string error;                // why there are no samples
  };

  // Loads the decoder. `device` is what `ops` runs on. Throws Error that names the file, tensor or
  // field.
  Codec(const std::string& directory, std::unique_ptr<Device> device, std::unique_ptr<Ops> ops);
  // For tests.
  explicit Codec(std::unique_ptr<CodecDecoder> decoder);

  const CodecSpec& spec() const { return decoder_->spec(); }

  // Of frames [begin, end) of a stream of which frames [num_frames, num_codebooks] are known.
  // Frames end .. end + context - 1 must be among them unless the stream ends before; then the
  // samples will be those of decoding the whole stream (specification 8.2).
  Block block(std::span<const std::int32_t> frames, std::int32_t begin, std::int32_t end) const;

  // Whether blocks are decoded faster together. If so, blocks of one batch_size(), at most
  // batch_jobs() of them, may be given to start().
  bool has_batches() const { return decoder_->batch_jobs(1) > 1; }
  std::int32_t batch_size(const Block& block) const {
    return decoder_->batch_size(block.end - block.begin);
  }
  std::int32_t batch_jobs(std::int32_t size) const { return decoder_->batch_jobs(size); }

  // Begins to decode. finish() must follow from the same thread; others wait until then. A failure
  // is in the blocks' `error`.
  void start(std::span<Block* const> blocks);
  // Waits until the blocks of start() are done.
  void finish();

  // Both, of one block.
  void decode(Block& block);
  // Frames [begin, end) of `frames` as in block(), any number of them. pcm [(end - begin) *
  // samples_per_frame]. Lets others in between. Throws Error.
  void decode(std::span<const std::int32_t> frames, std::int32_t begin, std::int32_t end,
              std::span<float> pcm);

 private:
  // One thread at a time, first come, first served: with a mutex a thread that takes it again at
  // once would go on winning. A turn lasts from start() to finish(), callbacks within, so it is no
  // lock either, whose order among others would count.
  void enter();
  void leave();
  void set_busy(bool busy);

  const std::unique_ptr<Device> device_;
  const std::unique_ptr<Ops> ops_;
  const std::unique_ptr<CodecDecoder> decoder_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t entered_ = 0, left_ = 0;  // turns so far
  std::vector<Block*> running_;           // from start() to finish()
};

}  // namespace higgs_rt
