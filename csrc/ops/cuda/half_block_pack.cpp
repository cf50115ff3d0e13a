// Weights of a block of the codec decoder in the order in which half_block.cu reads them: for the
// up-sampling and for each unit the factors of its products, [tap][piece of 8 channels][place of
// output][channel in piece], then vectors of `outputs` numbers.
#include <cstring>

#include "ops/cuda/kernels/half_block.h"
#include "ops/cuda/kernels/half_places.h"

namespace higgs_rt {

namespace {

class Writer {
 public:
  explicit Writer(std::int64_t outputs) : outputs_(outputs), wide_(half_channels(outputs)) {}

  // value(output, channel) for all channels of one tap. `places`: channels come as a product
  // before this one leaves them in registers.
  template <class Value>
  void factors(std::int64_t channels, bool places, const Value& value) {
    const std::int64_t padded = half_channels(channels);
    for (std::int64_t piece = 0; piece < padded; piece += 8) {
      for (std::int64_t place = 0; place < wide_; ++place) {
        for (std::int64_t i = piece; i < piece + 8; ++i) {
          const std::int64_t o = half_output_at(place), c = places ? half_output_at(i) : i;
          add(__float2half(o < outputs_ && c < channels ? value(o, c) : 0.0F));
        }
      }
    }
  }
  void vector(const float* values) {
    for (std::int64_t i = 0; i < wide_; ++i) add(i < outputs_ ? values[i] : 0.0F);
  }
  void snake(const HalfBlockNumbers::Snake& of) {
    vector(of.alpha);
    vector(of.scale);
  }
  template <class T>
  void add(const T& value) {
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    out_.insert(out_.end(), bytes, bytes + sizeof(T));
  }
  std::vector<unsigned char> take() { return std::move(out_); }

 private:
  const std::int64_t outputs_, wide_;
  std::vector<unsigned char> out_;
};

// Two taps a phase, the earlier time first.
void add_up(Writer& writer, const HalfBlockNumbers& block) {
  const std::int64_t ratio = block.ratio, padding = (ratio + 1) / 2;
  for (std::int64_t phase = 0; phase < ratio; ++phase) {
    const std::int64_t tap = (phase + padding) % ratio;
    for (const std::int64_t at : {tap + ratio, tap}) {
      writer.factors(block.channels, false, [&](std::int64_t o, std::int64_t c) {
        return block.up[(c * block.outputs + o) * 2 * ratio + at];
      });
    }
  }
  writer.vector(block.up_bias);
}

void add_unit(Writer& writer, const HalfBlockNumbers::Unit& unit, std::int64_t outputs) {
  for (std::int64_t tap = 0; tap < kLastTaps; ++tap) {
    writer.factors(outputs, false, [&](std::int64_t o, std::int64_t c) {
      return unit.wide[(o * outputs + c) * kLastTaps + tap];
    });
  }
  writer.factors(outputs, true,
                 [&](std::int64_t o, std::int64_t c) { return unit.point[o * outputs + c]; });
  writer.snake(unit.before);
  writer.vector(unit.wide_bias);
  writer.snake(unit.between);
  writer.vector(unit.point_bias);
}

// Eight columns of factors: the weight in fp16, what that leaves of it, zeros. Then the bias, up to
// 16 bytes.
void add_last(Writer& writer, const HalfBlockNumbers& block) {
  constexpr std::int64_t kColumns = 8;
  for (std::int64_t tap = 0; tap < kLastTaps; ++tap) {
    for (std::int64_t piece = 0; piece < half_channels(block.outputs); piece += 8) {
      for (std::int64_t column = 0; column < kColumns; ++column) {
        for (std::int64_t c = piece; c < piece + 8; ++c) {
          const float weight = c < block.outputs ? block.last[c * kLastTaps + tap] : 0.0F;
          const __half high = __float2half(weight);
          const float low = weight - __half2float(high);
          writer.add(column == 0 ? high : __float2half(column == 1 ? low : 0.0F));
        }
      }
    }
  }
  for (const float value : {block.last_bias[0], 0.0F, 0.0F, 0.0F}) writer.add(value);
}

}  // namespace

std::vector<unsigned char> pack_half_block(const HalfBlockNumbers& block) {
  Writer writer(block.outputs);
  add_up(writer, block);
  for (const HalfBlockNumbers::Unit& unit : block.units) add_unit(writer, unit, block.outputs);
  writer.snake(block.after);
  if (block.last != nullptr) add_last(writer, block);
  return writer.take();
}

}  // namespace higgs_rt
