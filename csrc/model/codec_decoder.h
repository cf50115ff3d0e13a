// The codec's decode path: codes -> waveform (specification 8.1), over Ops.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "ops/ops.h"

namespace higgs_rt {

struct CodecSpec {
  std::int32_t num_codebooks = 0;
  std::int32_t codebook_size = 0;      // codes only, without BOS and EOS
  std::int32_t sample_rate = 0;        // Hz
  std::int32_t samples_per_frame = 0;  // product of the upsampling ratios
  // Frames on each side that a frame's samples depend on (10 for ratios 8,5,4,2,3; specification
  // 8.2), computed from kernel sizes and strides.
  std::int32_t context_frames = 0;
};

class CodecDecoder {
 public:
  virtual ~CodecDecoder() = default;
  virtual const CodecSpec& spec() const = 0;
  // codes [num_codebooks, num_frames] in [0, codebook_size), pcm [num_frames * samples_per_frame];
  // host memory. Samples are not clipped. A frame's samples do not depend on num_frames beyond the
  // context, bit for bit. One call at a time.
  void decode(std::span<const std::int32_t> codes, std::int32_t num_frames, std::span<float> pcm) {
    decode_range(codes, num_frames, 0, num_frames, pcm);
  }
  // Only the samples of frames [begin, end) of the same: pcm [(end - begin) * samples_per_frame].
  // Costs much less than the whole: most layers reach less far than context_frames.
  virtual void decode_range(std::span<const std::int32_t> codes, std::int32_t num_frames,
                            std::int32_t begin, std::int32_t end, std::span<float> pcm) = 0;
};

// Reads config.json and *.safetensors of a codec directory, in the transformers layout or with the
// original tensor names (weight norm as g and v). Throws Error that names the tensor or field.
// `ops` must outlive the decoder.
std::unique_ptr<CodecDecoder> load_codec_decoder(const std::string& directory, Ops& ops);

}  // namespace higgs_rt
