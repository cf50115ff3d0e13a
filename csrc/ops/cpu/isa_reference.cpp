// The kernels written plainly, with fp64 inside: each number that they store is rounded once.
//
// HIGGS_RT_CPU_ISA=reference makes an engine of them. Its difference from exact arithmetic is that
// of fp32 storage between the operations, which is what the TensorRT network is held against
// (docs/tensorrt.md); it is some ten times as slow as the others and never chosen by itself.
#include <bit>
#include <cmath>
#include <vector>

#include "ops/cpu/kernels.h"

namespace higgs_rt::reference {

namespace {

double widen(float x) { return x; }
double widen(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// Eight sums side by side, so that a processor need not wait for each addition.
template <class A, class B>
double dot(const A* a, const B* b, std::int64_t size) {
  constexpr int kLanes = 8;
  double sums[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) sums[l] += widen(a[i + l]) * widen(b[i + l]);
  }
  for (; i < size; ++i) sums[0] += widen(a[i]) * widen(b[i]);
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
}

template <class W>
void linear(const LinearArgs& a, std::int64_t begin, std::int64_t end) {
  const W* weight = static_cast<const W*>(a.weight);
  for (std::int64_t o = begin; o < end; ++o) {
    for (std::int64_t r = 0; r < a.rows; ++r) {
      float& out = a.out[r * a.outputs + o];
      const double before = a.accumulate ? out : 0.0;
      out = static_cast<float>(before + dot(a.x + r * a.inputs, weight + o * a.inputs, a.inputs));
    }
  }
}

void conv(const ConvArgs& a) {
  for (std::int64_t v = a.begin; v < a.end; ++v) {
    const std::int64_t output = v / a.phases, phase = v % a.phases;
    for (std::int64_t i = 0; i < a.count; ++i) {
      const std::int64_t time = i * a.phases + phase + a.first;
      if (time < 0 || time >= a.out_times) continue;
      const std::int64_t at = output * a.out_times + time;
      double sum = a.bias[output];
      for (std::int64_t c = 0; c < a.channels; ++c) {
        const float* weight = a.weight + output * a.w_output + phase + c * a.w_channel;
        const float* x = a.x + c * a.x_stride + i;
        for (std::int64_t k = 0; k < a.taps; ++k) {
          sum += widen(weight[k * a.w_tap]) * widen(x[k * a.x_step]);
        }
      }
      const auto value = static_cast<float>(sum);
      // Added to what was rounded, as the other kernels do.
      a.out[at] = a.residual == nullptr ? value : value + a.residual[at];
    }
  }
}

std::int64_t cache_offset(const AttentionArgs& a, std::int64_t position) {
  const std::int64_t slot =
      a.blocks[position / a.block_tokens] * a.block_tokens + position % a.block_tokens;
  return (slot * a.kv_heads + a.kv_head) * a.dim;
}

// One query [dim] over positions 0..length-1.
void attend(const AttentionArgs& a, const float* q, std::int64_t length, float* out) {
  std::vector<double> weights;
  double top = -INFINITY, total = 0.0;
  for (std::int64_t p = 0; p < length; ++p) {
    weights.push_back(dot(q, a.k_cache + cache_offset(a, p), a.dim) * widen(a.scale));
    top = std::fmax(top, weights.back());
  }
  std::vector<double> sums(static_cast<std::size_t>(a.dim));
  for (std::int64_t p = 0; p < length; ++p) {
    const double weight = std::exp(weights[static_cast<std::size_t>(p)] - top);
    const float* value = a.v_cache + cache_offset(a, p);
    for (double& sum : sums) sum += weight * widen(*value++);
    total += weight;
  }
  for (const double sum : sums) *out++ = static_cast<float>(sum / total);
}

void attention(const AttentionArgs& a) {
  const std::int64_t group = a.query_heads / a.kv_heads;
  for (std::int64_t row = 0; row < a.rows; ++row) {
    for (std::int64_t member = 0; member < group; ++member) {
      const std::int64_t at = (row * a.query_heads + a.kv_head * group + member) * a.dim;
      attend(a, a.q + at, a.position[row] + 1, a.out + at);
    }
  }
}

template <class W>
void rms_norm(const float* x, const W* weight, float eps, float* out, std::int64_t size) {
  const double mean = dot(x, x, size) / static_cast<double>(size);
  const double scale = 1.0 / std::sqrt(mean + widen(eps));
  for (std::int64_t i = 0; i < size; ++i) {
    out[i] = static_cast<float>(widen(x[i]) * scale * widen(weight[i]));
  }
}

void swiglu(const float* gate, const float* up, float* out, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) {
    const double g = gate[i];
    out[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * widen(up[i]));
  }
}

void snake(const float* x, float alpha, float* out, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) {
    const double s = std::sin(widen(x[i]) * widen(alpha));
    out[i] = static_cast<float>(widen(x[i]) + s * s / (widen(alpha) + 1e-9));
  }
}

template <class T>
void add(const T* x, bool first, float* out, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) {
    out[i] = static_cast<float>((first ? 0.0 : widen(out[i])) + widen(x[i]));
  }
}

}  // namespace

const Kernels& kernels() {
  static constexpr Kernels table = {
      .isa = "reference",
      .conv_step = 1,
      .attention_rows = 1,
      .linear_f32 = linear<float>,
      .linear_bf16 = linear<std::uint16_t>,
      .linear_panels = nullptr,
      .conv = conv,
      .conv_transposed = nullptr,
      .attention = attention,
      .rms_norm_f32 = rms_norm<float>,
      .rms_norm_bf16 = rms_norm<std::uint16_t>,
      .swiglu = swiglu,
      .snake = snake,
      .add_f32 = add<float>,
      .add_bf16 = add<std::uint16_t>,
  };
  return table;
}

}  // namespace higgs_rt::reference
