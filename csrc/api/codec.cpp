#include "api/codec.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/check.h"

namespace higgs_rt {

Codec::Codec(const std::string& directory, std::unique_ptr<Ops> ops)
    : ops_(std::move(ops)), decoder_(load_codec_decoder(directory, *ops_)) {}

void Codec::decode(std::span<const std::int32_t> frames, std::int32_t begin, std::int32_t end,
                   std::span<float> pcm) {
  const auto per_frame = static_cast<std::size_t>(spec().samples_per_frame);
  for (std::int32_t first = begin; first < end; first += kBlockFrames) {
    const std::int32_t last = std::min(first + kBlockFrames, end);
    decode_block(frames, first, last,
                 pcm.subspan(static_cast<std::size_t>(first - begin) * per_frame,
                             static_cast<std::size_t>(last - first) * per_frame));
  }
}

void Codec::decode_block(std::span<const std::int32_t> frames, std::int32_t begin, std::int32_t end,
                         std::span<float> pcm) {
  const auto books = static_cast<std::size_t>(spec().num_codebooks);
  const auto known = static_cast<std::int32_t>(frames.size() / books);
  const std::int32_t left = std::max(0, begin - spec().context_frames);
  const std::int32_t right = std::min(known, end + spec().context_frames);
  const auto count = static_cast<std::size_t>(right - left);
  std::vector<std::int32_t> codes(books * count);
  for (std::size_t t = 0; t < count; ++t) {
    const auto frame = frames.subspan((static_cast<std::size_t>(left) + t) * books, books);
    for (std::size_t k = 0; k < books; ++k) codes[k * count + t] = frame[k];
  }
  {
    const std::scoped_lock lock(mutex_);
    decoder_->decode_range(codes, right - left, begin - left, end - left, pcm);
  }
  for (float& sample : pcm) {
    check_internal(std::isfinite(sample), "codec", "frames ", begin, "..", end - 1,
                   ": expected finite samples, got ", sample);
    sample = std::clamp(sample, -1.0F, 1.0F);
  }
}

}  // namespace higgs_rt
