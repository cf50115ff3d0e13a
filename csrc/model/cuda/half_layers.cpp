#include "model/cuda/half_layers.h"

#include <utility>

#include "core/cuda/cuda_check.h"
#include "model/codec_weights.h"

namespace higgs_rt {

namespace {

constexpr const char* kWhere = "cuda codec";

class Layers {
 public:
  Layers(const CodecConfig& config, const HalfCodecWeights& weights, const HalfBuffers& buffers,
         HalfBatch batch, cudaStream_t stream)
      : config_(config),
        weights_(weights),
        now_(buffers.a.get()),
        next_(buffers.b.get()),
        x_(buffers.x.get()),
        batch_(batch),
        stream_(stream) {}

  void run(const CodecWindow& window, const std::int32_t* codes, float* pcm) {
    const HalfTables tables = {.tables = weights_.tables.get(),
                               .bias = weights_.table_bias.get(),
                               .codes = codes,
                               .out = now_,
                               .codebooks = config_.num_codebooks,
                               .vocab = config_.codebook_size,
                               .size = config_.latent,
                               .channels = weights_.first.channels,
                               .rows = window.rows,
                               .begin = window.begin,
                               .batch = batch_};
    check_cuda(launch_half_tables(tables, stream_), kWhere, "half_tables");
    HalfConv first = same(weights_.first, 1, window.rows, window.begin, 1);
    run_conv(first, weights_.blocks[0].snake.view());
    for (std::size_t i = 0; i < weights_.blocks.size(); ++i) run_block(i, window, pcm);
    if (weights_.blocks.back().joined.get() != nullptr) return;
    const CodecWindow::Block& end = window.blocks.back();
    const HalfLast last = {.x = now_,
                           .weight = weights_.last.get(),
                           .bias = weights_.last_bias.get(),
                           .pcm = pcm,
                           .channels = weights_.last_channels,
                           .in_rows = end.rows * config_.ratios.back(),
                           .in_begin = window.last_begin,
                           .samples = window.frames * end.rate,
                           .batch = batch_};
    check_cuda(launch_half_last(last, stream_), kWhere, "half_last");
  }

 private:
  // A convolution that keeps the number of rows; `taps` follow from the dilation (0: one tap).
  HalfConv same(const HalfConvWeights& weights, std::int32_t dilation, std::int32_t rows,
                std::int32_t begin, std::int32_t rate) const {
    HalfConv conv = {};
    conv.weight = weights.weight.get();
    conv.bias = weights.bias.get();
    conv.channels = weights.channels;
    conv.outputs = weights.outputs;
    conv.taps = dilation == 0 ? 1 : static_cast<std::int32_t>(kCodecKernel);
    conv.dilation = dilation;
    conv.padding = dilation * static_cast<std::int32_t>(kCodecKernel - 1) / 2;
    conv.phases = 1;
    conv.rows = conv.in_rows = rows;
    conv.out_begin = begin;
    conv.rate = rate;
    conv.batch = batch_;
    return conv;
  }

  // The next one begins where this one ends.
  void end_kernel() {
    std::swap(now_, next_);
    batch_.reverse = !batch_.reverse;
  }

  // From now_ to now_.
  void run_conv(HalfConv& conv, HalfSnake snake) {
    conv.x = now_;
    conv.activated = next_;
    conv.snake = snake;
    check_cuda(launch_half_conv(conv, stream_), kWhere, "half_conv");
    end_kernel();
  }

  void run_joined(std::size_t index, const CodecWindow& window, float* pcm) {
    const HalfBlockWeights& weights = weights_.blocks[index];
    const CodecWindow::Block& block = window.blocks[index];
    const bool last = index + 1 == weights_.blocks.size();
    const HalfBlock joined = {.x = now_,
                              .weights = weights.joined.get(),
                              .activated = last ? nullptr : next_,
                              .pcm = last ? pcm : nullptr,
                              .rows = block.rows,
                              .in_rows = block.in_rows,
                              .in_begin = block.in_begin,
                              .out_begin = block.out_begin,
                              .rate = block.rate,
                              .last_begin = window.last_begin,
                              .samples = window.frames * block.rate,
                              .batch = batch_};
    check_cuda(launch_half_block(joined, weights.channels, weights.outputs, stream_), kWhere,
               "half_block");
    end_kernel();
  }

  void run_block(std::size_t index, const CodecWindow& window, float* pcm) {
    const HalfBlockWeights& weights = weights_.blocks[index];
    const CodecWindow::Block& block = window.blocks[index];
    if (weights.joined.get() != nullptr) return run_joined(index, window, pcm);
    const std::int32_t ratio = config_.ratios[index];
    HalfConv up = same(weights.upsample, 1, block.rows, block.out_begin, block.rate);
    up.taps = 2;
    up.padding = (ratio + 1) / 2;
    up.phases = ratio;
    up.in_rows = block.in_rows;
    up.in_begin = block.in_begin;
    up.out = x_;
    run_conv(up, weights.units[0].snake1.view());
    const std::int32_t rows = block.rows * ratio;
    for (std::size_t u = 0; u < weights.units.size(); ++u) {
      const bool ends = u + 1 == weights.units.size();
      run_unit(weights.units[u], kCodecDilations[u], rows, block, !ends,
               ends ? snake_after(index) : weights.units[u + 1].snake1.view());
    }
  }

  // From now_ and x_ to now_ and, if `goes_on`, x_.
  void run_unit(const HalfUnitWeights& unit, std::int32_t dilation, std::int32_t rows,
                const CodecWindow::Block& block, bool goes_on, HalfSnake after) {
    HalfConv wide = same(unit.conv1, dilation, rows, block.out_begin, block.rate);
    HalfConv point = same(unit.conv2, 0, rows, block.out_begin, block.rate);
    point.residual = x_;
    if (goes_on) point.out = x_;
    if (!half_unit_fits(wide.channels)) {
      run_conv(wide, unit.snake2.view());
      run_conv(point, after);
      return;
    }
    HalfUnit both = {.conv = wide,
                     .wide_bias = wide.bias,
                     .between = unit.snake2.view(),
                     .point_weight = point.weight};
    both.conv.bias = point.bias;
    both.conv.residual = point.residual;
    both.conv.out = point.out;
    both.conv.x = now_;
    both.conv.activated = next_;
    both.conv.snake = after;
    check_cuda(launch_half_unit(both, stream_), kWhere, "half_unit");
    end_kernel();
  }

  HalfSnake snake_after(std::size_t block) const {
    return block + 1 < weights_.blocks.size() ? weights_.blocks[block + 1].snake.view()
                                              : weights_.last_snake.view();
  }

  const CodecConfig& config_;
  const HalfCodecWeights& weights_;
  __half* now_;
  __half* next_;
  float* x_;
  HalfBatch batch_;
  cudaStream_t stream_;
};

}  // namespace

void enqueue_half_layers(const CodecConfig& config, const HalfCodecWeights& weights,
                         const HalfBuffers& buffers, const CodecWindow& window, HalfBatch batch,
                         const std::int32_t* codes, float* pcm, cudaStream_t stream) {
  Layers(config, weights, buffers, batch, stream).run(window, codes, pcm);
}

}  // namespace higgs_rt
