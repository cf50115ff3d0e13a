#include "model/codec_spec.h"

#include "core/check.h"
#include "model/receptive_field.h"

namespace higgs_rt {

CodecSpec codec_spec(const CodecConfig& config) {
  CodecSpec spec;
  spec.num_codebooks = config.num_codebooks;
  spec.codebook_size = config.codebook_size;
  spec.sample_rate = config.sample_rate;
  spec.samples_per_frame = 1;
  for (const std::int32_t ratio : config.ratios) spec.samples_per_frame *= ratio;
  spec.context_frames = context_frames(config.ratios);
  return spec;
}

void check_codec_job(const CodecSpec& spec, const CodecDecoder::Job& job) {
  check(job.num_frames >= 0, "codec", "expected 0 or more frames, got ", job.num_frames);
  const auto frames = static_cast<std::size_t>(job.num_frames);
  const auto books = static_cast<std::size_t>(spec.num_codebooks);
  check(job.codes.size() == books * frames, "codec", "expected ", books, " x ", frames,
        " codes, got ", job.codes.size());
  check(job.begin >= 0 && job.begin <= job.end && job.end <= job.num_frames, "codec",
        "expected a range of frames in [0, ", job.num_frames, "], got [", job.begin, ", ", job.end,
        ")");
  const std::size_t samples = static_cast<std::size_t>(job.end - job.begin) *
                              static_cast<std::size_t>(spec.samples_per_frame);
  check(job.pcm.size() == samples, "codec", "expected room for ", samples, " samples, got ",
        job.pcm.size());
  for (std::size_t i = 0; i < job.codes.size(); ++i) {
    check(job.codes[i] >= 0 && job.codes[i] < spec.codebook_size, "codec", "expected codes in [0, ",
          spec.codebook_size, "), got ", job.codes[i], " in codebook ", i / frames, ", frame ",
          i % frames);
  }
}

}  // namespace higgs_rt
