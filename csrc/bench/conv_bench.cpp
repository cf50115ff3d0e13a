// Convolutions of the codec decoder (specification 8.1) at the released width and the demo's.
#include <cmath>
#include <utility>

#include "bench/openblas.h"
#include "bench/report.h"

namespace higgs_rt::bench {

namespace {

constexpr std::int64_t kRatios[] = {8, 5, 4, 2, 3};
constexpr std::int64_t kTaps = 7;

struct Layer {
  std::string name;
  std::int64_t channels, outputs, taps, times;
  Ops::Conv1d conv;
  bool transposed;
  std::int64_t uses;  // in one decode
};

std::string label(const char* kind, std::int64_t channels, std::int64_t outputs, std::int64_t taps,
                  std::int64_t dilation) {
  return std::string(kind) + ' ' + std::to_string(channels) + ">" + std::to_string(outputs) + " k" +
         std::to_string(taps) + " d" + std::to_string(dilation);
}

std::vector<Layer> decoder_layers(std::int64_t latent, std::int64_t width, std::int64_t frames) {
  const auto same = [](std::int64_t in, std::int64_t out, std::int64_t taps, std::int64_t dilation,
                       std::int64_t times) {
    return Layer{label("conv", in, out, taps, dilation),      in,    out, taps, times,
                 {1, dilation, dilation * (taps - 1) / 2, 0}, false, 1};
  };
  std::vector<Layer> layers{same(latent, width, kTaps, 1, frames)};
  std::int64_t times = frames;
  for (const std::int64_t ratio : kRatios) {
    layers.push_back({label("up", width, width / 2, 2 * ratio, 1),
                      width,
                      width / 2,
                      2 * ratio,
                      times,
                      {ratio, 1, (ratio + 1) / 2, ratio % 2},
                      true,
                      1});
    times *= ratio;
    width /= 2;
    for (const std::int64_t dilation : {1, 3, 9}) {
      layers.push_back(same(width, width, kTaps, dilation, times));
    }
    layers.push_back(same(width, width, 1, 1, times));
    layers.back().uses = 3;
  }
  layers.push_back(same(width, 1, kTaps, 1, times));
  return layers;
}

double flops_of(const Layer& layer) {
  return 2.0 * static_cast<double>(layer.channels * layer.outputs * layer.taps * layer.times);
}

// OpenBLAS at its best: weights repacked beforehand to [taps, O, C] and the input padded
// beforehand, one product per tap; without the final interleaving for the transposed form.
double time_openblas(Machine& machine, const Report& report, const Layer& layer) {
  const std::int64_t width = layer.times + 2 * layer.conv.padding;
  const Tensor weight = machine.random({layer.taps, layer.outputs, layer.channels});
  const Tensor x = machine.random({layer.channels, width});
  const Tensor out = machine.random({layer.outputs * layer.taps, layer.times});
  const std::int64_t size = layer.outputs * layer.channels;
  return measure(report.options().seconds,
                 [&] {
                   if (layer.transposed) {
                     openblas_sgemm(false, layer.outputs * layer.taps, layer.times, layer.channels,
                                    weight.as<float>(), layer.channels, x.as<float>(), width, 0.0f,
                                    out.as<float>(), layer.times);
                     return;
                   }
                   for (std::int64_t k = 0; k < layer.taps; ++k) {
                     openblas_sgemm(false, layer.outputs, layer.times, layer.channels,
                                    weight.as<float>() + k * size, layer.channels,
                                    x.as<float>() + k * layer.conv.dilation, width,
                                    k == 0 ? 0.0f : 1.0f, out.as<float>(), layer.times);
                   }
                 })
      .best;
}

Timing time_layer(Machine& machine, const Report& report, const Layer& layer) {
  const Tensor x = machine.random({layer.channels, layer.times});
  const Tensor bias = machine.random({layer.outputs});
  const std::int64_t first = layer.transposed ? layer.channels : layer.outputs;
  const std::int64_t second = layer.transposed ? layer.outputs : layer.channels;
  Tensor weight = machine.random({first, second, layer.taps});
  if (layer.transposed) {
    Tensor packed = machine.ops->pack_transposed(weight, layer.conv.stride);
    if (packed.view()) weight = std::move(packed);
  }
  const std::int64_t out_times = layer.transposed ? layer.times * layer.conv.stride : layer.times;
  const Tensor out = machine.random({layer.outputs, out_times});
  return measure(report.options().seconds, [&] {
    if (layer.transposed) {
      machine.ops->conv_transpose1d(x, weight, bias, layer.conv, out);
    } else {
      machine.ops->conv1d(x, weight, bias, layer.conv, nullptr, out);
    }
  });
}

// Snakes of the whole decoder: one before each up-sampling and two per residual unit.
double snake_microseconds(Machine& machine, const Report& report, std::int64_t width,
                          std::int64_t frames) {
  double total = 0.0;
  std::int64_t times = frames;
  const auto once = [&] {
    const Tensor x = machine.random({width, times}), alpha = machine.random({width});
    const Tensor out = machine.random({width, times});
    return measure(report.options().seconds, [&] { machine.ops->snake(x, alpha, out); }).best;
  };
  for (const std::int64_t ratio : kRatios) {
    total += once();
    times *= ratio;
    width /= 2;
    total += 6.0 * once();
  }
  return total + once();
}

void bench_decoder(Machine& machine, Report& report, const char* group, std::int64_t latent,
                   std::int64_t width, std::int64_t frames) {
  if (!report.wants(group)) return;
  Row total{group, "all convolutions", frames};
  for (const Layer& layer : decoder_layers(latent, width, frames)) {
    const Timing timing = time_layer(machine, report, layer);
    Row row{group, layer.name, frames, timing.best, timing.median};
    row.flops = flops_of(layer);
    if (have_openblas()) row.openblas_microseconds = time_openblas(machine, report, layer);
    report.add(row);
    const auto uses = static_cast<double>(layer.uses);
    total.microseconds += uses * timing.best;
    total.median_microseconds += uses * timing.median;
    total.flops += uses * row.flops;
    total.openblas_microseconds += uses * row.openblas_microseconds;
  }
  report.add(total);
  Row snakes{group, "all snakes", frames};
  snakes.microseconds = snake_microseconds(machine, report, width, frames);
  report.add(snakes);
}

}  // namespace

void bench_conv(Machine& machine, Report& report) {
  bench_decoder(machine, report, "codec released, 21 frames", 256, 1024, 21);
  bench_decoder(machine, report, "codec demo, 21 frames", 64, 320, 21);
  bench_decoder(machine, report, "codec demo, 100 frames", 64, 320, 100);
}

}  // namespace higgs_rt::bench
