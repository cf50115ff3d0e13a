// The codec of a runtime: whole and seam-exact partial decoding, one caller at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "model/codec_decoder.h"
#include "ops/ops.h"

namespace higgs_rt {

class Codec {
 public:
  // Frames of one call of the decoder, besides their context: bounds memory and waiting.
  static constexpr std::int32_t kBlockFrames = 64;

  // Loads the decoder. Throws Error that names the file, tensor or field.
  Codec(const std::string& directory, std::unique_ptr<Ops> ops);

  const CodecSpec& spec() const { return decoder_->spec(); }

  // Samples of frames [begin, end) of a stream of which `num_frames` frames are known, given as
  // frames [num_frames, num_codebooks]. Frames end .. end + context - 1 must be known unless the
  // stream ends before them; then the samples are those of decoding the whole stream (specification
  // 8.2). pcm [(end - begin) * samples_per_frame], clipped to [-1, 1]. Blocks of kBlockFrames let
  // other callers in between.
  void decode(std::span<const std::int32_t> frames, std::int32_t begin, std::int32_t end,
              std::span<float> pcm);

 private:
  void decode_block(std::span<const std::int32_t> frames, std::int32_t begin, std::int32_t end,
                    std::span<float> pcm);

  std::unique_ptr<Ops> ops_;
  std::unique_ptr<CodecDecoder> decoder_;
  std::mutex mutex_;
};

}  // namespace higgs_rt
