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
  // Samples of frames [begin, end) of an utterance or a part of one: codes [num_codebooks,
  // num_frames] in [0, codebook_size), pcm [(end - begin) * samples_per_frame]; host memory that
  // stays until the job is done. Samples are not clipped. They are those of decoding the whole, bit
  // for bit, if each side has context_frames frames more or is an end of the utterance.
  struct Job {
    std::span<const std::int32_t> codes;
    std::int32_t num_frames = 0;
    std::int32_t begin = 0;
    std::int32_t end = 0;
    std::span<float> pcm;
  };

  virtual ~CodecDecoder() = default;
  virtual const CodecSpec& spec() const = 0;

  // One call at a time of everything below.

  void decode(std::span<const std::int32_t> codes, std::int32_t num_frames, std::span<float> pcm) {
    decode_range(codes, num_frames, 0, num_frames, pcm);
  }
  // Of any length. Costs much less than the whole: most layers reach less far than context_frames.
  virtual void decode_range(std::span<const std::int32_t> codes, std::int32_t num_frames,
                            std::int32_t begin, std::int32_t end, std::span<float> pcm) = 0;

  // Jobs may run together if their numbers of frames have the same batch_size() (the number that is
  // computed), and as many as batch_jobs() of it. A job that has none (0) is only for
  // decode_range(). A decoder that gains nothing from batches takes one job of any size.
  virtual std::int32_t batch_size(std::int32_t frames) const { return frames; }
  virtual std::int32_t batch_jobs(std::int32_t) const { return 1; }
  // Begins to decode such jobs, or throws and does nothing. Then finish() must follow: it waits
  // until all are done.
  virtual void start(std::span<const Job> jobs);
  virtual void finish() {}
};

// kHalf is for CUDA: operands rounded to fp16, sums and everything else in fp32; the signal to
// noise ratio against kFloat is stated in docs/performance.md.
enum class CodecPrecision { kFloat, kHalf };

// Reads config.json and *.safetensors of a codec directory, in the transformers layout or with the
// original tensor names (weight norm as g and v). Throws Error that names the tensor or field.
// `ops` must outlive the decoder. Without a precision: kHalf on CUDA, kFloat elsewhere, and
// on a GPU without the shared memory for it (compute capability 8.6, 8.9, 12.x), where it says so
// on stderr.
std::unique_ptr<CodecDecoder> load_codec_decoder(const std::string& directory, Ops& ops);
std::unique_ptr<CodecDecoder> load_codec_decoder(const std::string& directory, Ops& ops,
                                                 CodecPrecision precision);

}  // namespace higgs_rt
