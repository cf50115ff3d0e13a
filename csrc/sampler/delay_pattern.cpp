#include "sampler/delay_pattern.h"

#include <algorithm>

#include "core/check.h"

namespace higgs_rt {

namespace {

void check_codebooks(std::int32_t num_codebooks, std::int32_t codebook_size) {
  check(num_codebooks >= 1, "delay pattern", "expected num_codebooks >= 1, got ", num_codebooks);
  check(codebook_size >= 1, "delay pattern", "expected codebook_size >= 1, got ", codebook_size);
}

// codes [T, K] as in the order of time -> [K, T]
std::vector<std::int32_t> transpose(const std::vector<std::int32_t>& frames,
                                    std::size_t codebooks) {
  const std::size_t count = frames.size() / codebooks;
  std::vector<std::int32_t> codes(frames.size());
  for (std::size_t j = 0; j < count; ++j) {
    for (std::size_t k = 0; k < codebooks; ++k) codes[k * count + j] = frames[j * codebooks + k];
  }
  return codes;
}

}  // namespace

std::vector<std::int32_t> apply_delay(std::span<const std::int32_t> codes,
                                      std::int32_t num_codebooks, std::int32_t codebook_size) {
  check_codebooks(num_codebooks, codebook_size);
  const auto codebooks = static_cast<std::size_t>(num_codebooks);
  check(codes.size() % codebooks == 0, "delay pattern", "expected codes [", codebooks, ", T], got ",
        codes.size(), " ids");
  const std::size_t frames = codes.size() / codebooks;
  std::vector<std::int32_t> columns((frames + codebooks + 1) * codebooks, codebook_size + 1);
  for (std::size_t k = 0; k < codebooks; ++k) {
    for (std::size_t c = 0; c <= k; ++c) columns[c * codebooks + k] = codebook_size;
    for (std::size_t j = 0; j < frames; ++j) {
      const std::int32_t code = codes[k * frames + j];
      check(code >= 0 && code < codebook_size, "delay pattern", "expected codes in [0, ",
            codebook_size, "), got ", code, " in codebook ", k, ", frame ", j);
      columns[(j + k + 1) * codebooks + k] = code;
    }
  }
  return columns;
}

FrameAssembler::FrameAssembler(std::int32_t num_codebooks, std::int32_t codebook_size)
    : num_codebooks_(num_codebooks), codebook_size_(codebook_size) {
  check_codebooks(num_codebooks, codebook_size);
  const auto codebooks = static_cast<std::size_t>(num_codebooks);
  frame_.resize(codebooks);
  recent_.resize(codebooks * codebooks);
}

bool FrameAssembler::push(std::span<const std::int32_t> column, bool ended) {
  const auto codebooks = static_cast<std::size_t>(num_codebooks_);
  check(!ended_, "delay pattern", "expected no column after the end, got column ", num_columns_);
  check(column.size() == codebooks, "delay pattern", "expected a column of ", codebooks,
        " ids, got ", column.size());
  for (const std::int32_t id : column) {
    check(id >= 0 && id <= codebook_size_ + 1, "delay pattern", "expected ids in [0, ",
          codebook_size_ + 2, "), got ", id, " in column ", num_columns_);
  }
  const auto index = static_cast<std::size_t>(num_columns_);
  std::copy(column.begin(), column.end(),
            recent_.begin() + static_cast<std::ptrdiff_t>(index % codebooks * codebooks));
  ++num_columns_;
  ended_ = ended;
  if (ended || index < codebooks) return false;

  // Frame index - K: its code of codebook k is in column index - K + k + 1.
  bool real = true;
  for (std::size_t k = 0; k < codebooks; ++k) {
    frame_[k] = recent_[(index + k + 1) % codebooks * codebooks + k];
    real = real && frame_[k] < codebook_size_;
  }
  ++(real ? num_frames_ : num_dropped_);
  return real;
}

RevertedFrames revert_delay(std::span<const std::int32_t> columns, std::int32_t num_codebooks,
                            std::int32_t codebook_size, bool ended) {
  FrameAssembler assembler(num_codebooks, codebook_size);
  const auto codebooks = static_cast<std::size_t>(num_codebooks);
  check(columns.size() % codebooks == 0, "delay pattern", "expected columns [n, ", codebooks,
        "], got ", columns.size(), " ids");
  std::vector<std::int32_t> frames;
  for (std::size_t i = 0; i < columns.size(); i += codebooks) {
    const bool last = i + codebooks == columns.size();
    if (assembler.push(columns.subspan(i, codebooks), ended && last)) {
      frames.insert(frames.end(), assembler.frame().begin(), assembler.frame().end());
    }
  }
  return {transpose(frames, codebooks), assembler.num_frames(), assembler.num_dropped()};
}

}  // namespace higgs_rt
