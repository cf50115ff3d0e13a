#include "api/codec.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/check.h"

namespace higgs_rt {

namespace {

void clip(std::span<float> pcm) {
  for (float& sample : pcm) {
    check_internal(std::isfinite(sample), "codec", "expected finite samples, got ", sample);
    sample = std::clamp(sample, -1.0F, 1.0F);
  }
}

CodecDecoder::Job job_of(Codec::Block& block) {
  return {block.codes, block.num_frames, block.begin, block.end, block.pcm};
}

}  // namespace

Codec::Codec(const std::string& directory, std::unique_ptr<Device> device, std::unique_ptr<Ops> ops)
    : device_(std::move(device)),
      ops_(std::move(ops)),
      decoder_(load_codec_decoder(directory, *ops_)) {}

Codec::Codec(std::unique_ptr<CodecDecoder> decoder) : decoder_(std::move(decoder)) {}

Codec::Block Codec::block(std::span<const std::int32_t> frames, std::int32_t begin,
                          std::int32_t end) const {
  const auto books = static_cast<std::size_t>(spec().num_codebooks);
  const auto known = static_cast<std::int32_t>(frames.size() / books);
  const std::int32_t left = std::max(0, begin - spec().context_frames);
  const std::int32_t right = std::min(known, end + spec().context_frames);
  const auto count = static_cast<std::size_t>(right - left);
  Block block;
  block.num_frames = right - left;
  block.begin = begin - left;
  block.end = end - left;
  block.first = begin == 0;
  block.codes.resize(books * count);
  for (std::size_t t = 0; t < count; ++t) {
    const auto frame = frames.subspan((static_cast<std::size_t>(left) + t) * books, books);
    for (std::size_t k = 0; k < books; ++k) block.codes[k * count + t] = frame[k];
  }
  block.pcm.resize(static_cast<std::size_t>(end - begin) *
                   static_cast<std::size_t>(spec().samples_per_frame));
  return block;
}

void Codec::enter() {
  std::unique_lock lock(mutex_);
  const std::uint64_t turn = entered_++;
  changed_.wait(lock, [&] { return left_ == turn; });
}

void Codec::leave() {
  {
    const std::scoped_lock lock(mutex_);
    ++left_;
  }
  changed_.notify_all();
}

void Codec::set_busy(bool busy) {
  if (ops_) ops_->set_busy(busy);
}

void Codec::start(std::span<Block* const> blocks) {
  enter();
  set_busy(true);
  running_.assign(blocks.begin(), blocks.end());
  try {
    std::vector<CodecDecoder::Job> jobs;
    for (Block* block : running_) jobs.push_back(job_of(*block));
    decoder_->start(jobs);
  } catch (const std::exception& error) {
    for (Block* block : running_) block->error = error.what();
  }
}

void Codec::finish() {
  const std::vector<Block*> blocks = std::exchange(running_, {});
  std::string failure;
  try {
    decoder_->finish();
  } catch (const std::exception& error) {
    failure = error.what();
  }
  set_busy(false);
  leave();
  for (Block* block : blocks) {
    try {
      if (block->error.empty()) block->error = failure;
      if (block->error.empty()) clip(block->pcm);
    } catch (const std::exception& error) {
      block->error = error.what();
    }
  }
}

void Codec::decode(Block& block) {
  Block* const blocks[] = {&block};
  start(blocks);
  finish();
}

void Codec::decode(std::span<const std::int32_t> frames, std::int32_t begin, std::int32_t end,
                   std::span<float> pcm) {
  const auto per_frame = static_cast<std::size_t>(spec().samples_per_frame);
  const std::int32_t step = kBlockFrames * decoder_->batch_jobs(kBlockFrames);
  for (std::int32_t first = begin; first < end; first += step) {
    Block part = block(frames, first, std::min(first + step, end));
    enter();
    try {
      decoder_->decode_range(part.codes, part.num_frames, part.begin, part.end, part.pcm);
    } catch (...) {
      leave();
      throw;
    }
    leave();
    clip(part.pcm);
    std::copy(part.pcm.begin(), part.pcm.end(),
              pcm.begin() + static_cast<std::ptrdiff_t>(first - begin) *
                                static_cast<std::ptrdiff_t>(per_frame));
  }
}

}  // namespace higgs_rt
