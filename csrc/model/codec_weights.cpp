#include "model/codec_weights.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <string_view>

#include "core/check.h"

namespace higgs_rt {

namespace {

using Numbers = std::vector<float>;

Numbers to_numbers(const TensorView& tensor) {
  const auto size = static_cast<std::size_t>(tensor.size());
  Numbers out(size);
  if (tensor.dtype == DType::kF32) {
    const auto* data = tensor.as<float>();
    out.assign(data, data + size);
  } else {
    const auto* data = tensor.as<BF16>();
    for (std::size_t i = 0; i < size; ++i) out[i] = to_float(data[i]);
  }
  return out;
}

// Tensors of a whole codec that decoding does not need, in either layout (specification 2.2).
bool is_for_encoding(const std::string& name) {
  constexpr std::string_view kParts[] = {"acoustic_encoder.",
                                         "encoder.",
                                         "encoder_semantic.",
                                         "decoder_semantic.",
                                         "semantic_model.",
                                         "fc.",
                                         "fc1.",
                                         "fc_prior.",
                                         "fc_post1."};
  constexpr std::string_view kQuantizerParts[] = {".project_in.weight", ".project_in.bias",
                                                  ".embed_avg", ".cluster_size", ".inited"};
  const auto begins = [&](std::string_view part) { return name.starts_with(part); };
  const auto ends = [&](std::string_view part) { return name.ends_with(part); };
  return std::ranges::any_of(kParts, begins) ||
         (begins("quantizer.") && std::ranges::any_of(kQuantizerParts, ends));
}

class Loader {
 public:
  Loader(const CodecConfig& config, const Checkpoint& checkpoint, Device& device)
      : config_(config), checkpoint_(checkpoint), device_(device) {}

  // A tensor by its transformers name, as fp32.
  Numbers numbers(const std::string& name, const Shape& shape) const {
    return to_numbers(take(stored(name), shape));
  }

  // Throws kInvalidArgument that names the first tensor that no part of a codec has.
  void refuse_others() const {
    for (const std::string& name : checkpoint_.names()) {
      check(used_.count(name) != 0 || is_for_encoding(name), checkpoint_.directory().c_str(),
            "expected no other tensors than the codec's, got ", name);
    }
  }

  Tensor on_device(const Numbers& values, const Shape& shape) const {
    Tensor tensor(device_, DType::kF32, shape);
    device_.copy_from_host(tensor.view().data, values.data(), values.size() * sizeof(float));
    return tensor;
  }

  // `outputs` is the number of biases: axis 0, or axis 1 of a transposed convolution.
  ConvWeights conv(const std::string& name, const Shape& shape, std::int64_t outputs) const {
    ConvWeights conv;
    conv.weight = on_device(folded(name, shape), shape);
    conv.bias = on_device(numbers(name + ".bias", {outputs}), {outputs});
    return conv;
  }

  Tensor snake(const std::string& name, std::int64_t channels) const {
    return on_device(numbers(name + ".alpha", {1, channels, 1}), {channels});
  }

 private:
  TensorView take(const std::string& stored_name, const Shape& shape) const {
    used_.insert(stored_name);
    return checkpoint_.tensor(stored_name, shape);
  }

  std::string stored(const std::string& name) const {
    if (config_.layout == Layout::kTransformers) return name;
    return original_codec_name(name, static_cast<std::int32_t>(config_.ratios.size()));
  }

  // The weight as it is, or g v / |v| with the norm over all axes but the first. The pair has two
  // published namings.
  Numbers folded(const std::string& name, const Shape& shape) const {
    const std::string base = stored(name + ".weight");
    const std::string parametrized = base.substr(0, base.size() - 6) + "parametrizations.weight.";
    if (checkpoint_.contains(base + "_v")) return fold(base + "_g", base + "_v", shape);
    if (checkpoint_.contains(parametrized + "original1")) {
      return fold(parametrized + "original0", parametrized + "original1", shape);
    }
    return to_numbers(take(base, shape));
  }

  Numbers fold(const std::string& g_name, const std::string& v_name, const Shape& shape) const {
    const Numbers g = to_numbers(take(g_name, {shape[0], 1, 1}));
    Numbers v = to_numbers(take(v_name, shape));
    const std::size_t width = v.size() / g.size();
    for (std::size_t row = 0; row < g.size(); ++row) {
      double sum = 0;
      for (std::size_t i = 0; i < width; ++i) {
        const double value = v[row * width + i];
        sum += value * value;
      }
      const double scale = static_cast<double>(g[row]) / std::sqrt(sum);
      check(std::isfinite(scale), checkpoint_.place(v_name).c_str(),
            "expected a finite weight norm above 0, got row ", row, " with norm ", std::sqrt(sum));
      for (std::size_t i = 0; i < width; ++i) {
        v[row * width + i] = static_cast<float>(v[row * width + i] * scale);
      }
    }
    return v;
  }

  const CodecConfig& config_;
  const Checkpoint& checkpoint_;
  Device& device_;
  mutable std::set<std::string> used_;
};

// out [n, m] = a [n, k] b [k, m], summed in fp64.
std::vector<double> multiply(const std::vector<double>& a, const std::vector<double>& b,
                             std::size_t n, std::size_t k, std::size_t m) {
  std::vector<double> out(n * m, 0.0);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < k; ++j) {
      const double value = a[i * k + j];
      for (std::size_t l = 0; l < m; ++l) out[i * m + l] += value * b[j * m + l];
    }
  }
  return out;
}

std::vector<double> transposed(const Numbers& matrix, std::size_t rows, std::size_t cols) {
  std::vector<double> out(matrix.size());
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < cols; ++j) out[j * rows + i] = matrix[i * cols + j];
  }
  return out;
}

// Specification 8.1, steps 1 and 2: row v of table k is fc2 project_out_k embed_k[v].
void load_tables(const Loader& loader, const CodecConfig& config, CodecWeights& weights) {
  const auto size = static_cast<std::size_t>(config.codebook_size);
  const auto dim = static_cast<std::size_t>(config.codebook_dim);
  const auto fused = static_cast<std::size_t>(config.fused);
  const auto latent = static_cast<std::size_t>(config.latent);
  const std::vector<double> fc2 =
      transposed(loader.numbers("fc2.weight", {config.latent, config.fused}), latent, fused);
  Numbers tables;
  std::vector<double> bias(fused, 0.0);
  for (std::int32_t k = 0; k < config.num_codebooks; ++k) {
    const std::string name = "quantizer.quantizers." + std::to_string(k);
    const Numbers embed =
        loader.numbers(name + ".codebook.embed", {config.codebook_size, config.codebook_dim});
    const Numbers out =
        loader.numbers(name + ".project_out.weight", {config.fused, config.codebook_dim});
    const Numbers out_bias = loader.numbers(name + ".project_out.bias", {config.fused});
    const auto joined = multiply(transposed(out, fused, dim), fc2, dim, fused, latent);
    const std::vector<double> wide(embed.begin(), embed.end());
    for (const double value : multiply(wide, joined, size, dim, latent)) {
      tables.push_back(static_cast<float>(value));
    }
    for (std::size_t i = 0; i < fused; ++i) bias[i] += out_bias[i];
  }
  const Numbers fc2_bias = loader.numbers("fc2.bias", {config.latent});
  Numbers folded;
  const auto projected = multiply(bias, fc2, 1, fused, latent);
  for (std::size_t i = 0; i < latent; ++i) {
    folded.push_back(static_cast<float>(projected[i] + fc2_bias[i]));
  }
  weights.tables =
      loader.on_device(tables, {config.num_codebooks, config.codebook_size, config.latent});
  weights.table_bias = loader.on_device(folded, {config.latent});
}

CodecBlockWeights load_block(const Loader& loader, std::size_t index, std::int64_t channels,
                             std::int64_t ratio) {
  const std::string name = "acoustic_decoder.block." + std::to_string(index);
  const std::int64_t half = channels / 2;
  CodecBlockWeights block;
  block.snake = loader.snake(name + ".snake1", channels);
  block.upsample = loader.conv(name + ".conv_t1", {channels, half, 2 * ratio}, half);
  for (std::size_t u = 1; u <= std::size(kCodecDilations); ++u) {
    const std::string unit = name + ".res_unit" + std::to_string(u);
    block.units.push_back({loader.snake(unit + ".snake1", half),
                           loader.conv(unit + ".conv1", {half, half, kCodecKernel}, half),
                           loader.snake(unit + ".snake2", half),
                           loader.conv(unit + ".conv2", {half, half, 1}, half)});
  }
  return block;
}

}  // namespace

CodecWeights load_codec_weights(const CodecConfig& config, const Checkpoint& checkpoint,
                                Device& device) {
  const Loader loader(config, checkpoint, device);
  CodecWeights weights;
  load_tables(loader, config, weights);
  std::int64_t channels = config.decoder_hidden;
  weights.first =
      loader.conv("acoustic_decoder.conv1", {channels, config.latent, kCodecKernel}, channels);
  for (std::size_t i = 0; i < config.ratios.size(); ++i) {
    weights.blocks.push_back(load_block(loader, i, channels, config.ratios[i]));
    channels /= 2;
  }
  weights.last_snake = loader.snake("acoustic_decoder.snake1", channels);
  weights.last = loader.conv("acoustic_decoder.conv2", {1, channels, kCodecKernel}, 1);
  loader.refuse_others();
  return weights;
}

}  // namespace higgs_rt
