#include "bench/random_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <vector>

#include "core/check.h"
#include "core/tensor.h"

namespace higgs_rt {
namespace {

// A prime number of elements, so that repeats do not line up with rows.
constexpr std::size_t kBlock = 1048573;

// Collects tensors, then writes them one after another as safetensors.
class TensorFile {
 public:
  TensorFile(DType dtype, std::uint64_t seed) : dtype_(dtype), random_(seed) {}

  // Uniform with standard deviation `deviation` around `mean`. Of every `period` rows the last
  // two are zero; 0: none.
  void add(const std::string& name, Shape shape, double deviation, double mean = 0,
           std::int64_t period = 0) {
    items_.push_back({name, std::move(shape), deviation, mean, period});
  }

  void write(const std::string& path) {
    std::ofstream file(path, std::ios::binary);
    const std::string header = make_header();
    const auto length = static_cast<std::uint64_t>(header.size());
    file.write(reinterpret_cast<const char*>(&length), sizeof length);
    file << header;
    for (const Item& item : items_) write_item(file, item);
    file.close();
    check(file.good(), path.c_str(), "expected a file that can be written, got an error");
  }

 private:
  struct Item {
    std::string name;
    Shape shape;
    double deviation;
    double mean;
    std::int64_t period;
  };

  std::string make_header() const {
    std::ostringstream out;
    std::int64_t offset = 0;
    out << '{';
    for (const Item& item : items_) {
      const std::int64_t bytes =
          num_elements(item.shape) * static_cast<std::int64_t>(size_of(dtype_));
      out << (offset > 0 ? "," : "") << '"' << item.name << R"(":{"dtype":")"
          << (dtype_ == DType::kBF16 ? "BF16" : "F32") << R"(","shape":[)";
      for (std::size_t i = 0; i < item.shape.size(); ++i)
        out << (i > 0 ? "," : "") << item.shape[i];
      out << R"(],"data_offsets":[)" << offset << ',' << offset + bytes << "]}";
      offset += bytes;
    }
    out << '}';
    std::string header = out.str();
    header.resize((header.size() + 7) / 8 * 8, ' ');
    return header;
  }

  void write_item(std::ofstream& file, const Item& item) {
    const auto count = static_cast<std::size_t>(num_elements(item.shape));
    std::vector<float> block(std::min(count, kBlock));
    const auto reach = static_cast<float>(item.deviation * std::sqrt(3.0));
    std::uniform_real_distribution<float> uniform(-reach, reach);
    for (float& value : block) value = uniform(random_) + static_cast<float>(item.mean);
    const std::string bytes = encode(item.period > 0 ? zeroed(item, block) : block);
    const std::size_t total = count * size_of(dtype_);
    for (std::size_t done = 0; done < total; done += bytes.size()) {
      const std::size_t piece = std::min(bytes.size(), total - done);
      file.write(bytes.data(), static_cast<std::streamsize>(piece));
    }
  }

  static std::vector<float> zeroed(const Item& item, const std::vector<float>& block) {
    const auto width = static_cast<std::size_t>(item.shape[1]);
    const auto period = static_cast<std::size_t>(item.period);
    std::vector<float> all(static_cast<std::size_t>(num_elements(item.shape)));
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::size_t row = i / width % period;
      const bool zero = row + 2 >= period;
      all[i] = zero ? 0.0F : block[i % block.size()];
    }
    return all;
  }

  std::string encode(const std::vector<float>& values) const {
    std::string bytes(values.size() * size_of(dtype_), '\0');
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (dtype_ == DType::kF32) {
        std::memcpy(bytes.data() + i * sizeof(float), &values[i], sizeof(float));
      } else {
        const BF16 rounded = to_bf16(values[i]);
        std::memcpy(bytes.data() + i * sizeof(BF16), &rounded, sizeof(BF16));
      }
    }
    return bytes;
  }

  DType dtype_;
  std::mt19937_64 random_;
  std::vector<Item> items_;
};

void write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  check(file.good(), path.c_str(), "expected a file that can be written, got an error");
}

std::string lm_config(const RandomLmShape& s, DType dtype) {
  const auto special = [&](std::int32_t index) { return s.vocab - 32 + index; };
  std::ostringstream out;
  out << R"({"architectures":["HiggsAudioV2ForConditionalGeneration"],)"
      << R"("model_type":"higgs_audio_v2","dtype":")"
      << (dtype == DType::kBF16 ? "bfloat16" : "float32") << R"(","vocab_size":)" << s.vocab
      << R"(,"hidden_size":)" << s.hidden << R"(,"intermediate_size":)" << s.ffn
      << R"(,"num_hidden_layers":)" << s.layers << R"(,"num_attention_heads":)" << s.heads
      << R"(,"num_key_value_heads":)" << s.kv_heads << R"(,"head_dim":)" << s.head_dim
      << R"(,"hidden_act":"silu","rms_norm_eps":1e-05,"max_position_embeddings":2048,)"
      << R"("attention_bias":false,"mlp_bias":false,"tie_word_embeddings":false,)"
      << R"("rope_parameters":{"rope_type":"llama3","rope_theta":500000.0,"factor":32.0,)"
      << R"("low_freq_factor":0.125,"high_freq_factor":0.5,)"
      << R"("original_max_position_embeddings":1024},"num_codebooks":)" << s.num_codebooks
      << R"(,"codebook_size":)" << s.codebook_size + 2 << R"(,"audio_stream_bos_id":)"
      << s.codebook_size << R"(,"audio_stream_eos_id":)" << s.codebook_size + 1
      << R"(,"audio_token_id":)" << special(16) << R"(,"audio_bos_token_id":)" << special(13)
      << R"(,"audio_delay_token_id":)" << special(14) << R"(,"bos_token_id":)" << special(0)
      << R"(,"eos_token_id":)" << special(9) << R"(,"pad_token_id":)" << special(1) << "}\n";
  return out.str();
}

std::string codec_config(const RandomCodecShape& s) {
  std::ostringstream out;
  out << R"({"model_type":"higgs_audio_v2_tokenizer","sample_rate":24000,"codebook_size":)"
      << s.codebook_size << R"(,"codebook_dim":)" << s.codebook_dim
      << R"(,"acoustic_model_config":{"model_type":"dac","hidden_size":)" << s.latent
      << R"(,"decoder_hidden_size":)" << s.decoder_hidden << R"(,"upsampling_ratios":[8,5,4,2,3]}})"
      << '\n';
  return out.str();
}

void add_layer(TensorFile& file, const RandomLmShape& s, const std::string& prefix) {
  const double from_hidden = 1 / std::sqrt(s.hidden);
  const std::int64_t q = std::int64_t{s.heads} * s.head_dim;
  const std::int64_t kv = std::int64_t{s.kv_heads} * s.head_dim;
  for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
    file.add(prefix + norm + ".weight", {s.hidden}, 0.2, 1);
    file.add(prefix + "audio_" + norm + ".weight", {s.hidden}, 0.2, 1);
  }
  file.add(prefix + "self_attn.q_proj.weight", {q, s.hidden}, from_hidden);
  file.add(prefix + "self_attn.k_proj.weight", {kv, s.hidden}, from_hidden);
  file.add(prefix + "self_attn.v_proj.weight", {kv, s.hidden}, from_hidden);
  file.add(prefix + "self_attn.o_proj.weight", {s.hidden, q}, 1 / std::sqrt(q));
  for (const char* mlp : {"mlp", "audio_mlp"}) {
    file.add(prefix + mlp + ".gate_proj.weight", {s.ffn, s.hidden}, from_hidden);
    file.add(prefix + mlp + ".up_proj.weight", {s.ffn, s.hidden}, from_hidden);
    file.add(prefix + mlp + ".down_proj.weight", {s.hidden, s.ffn}, 1 / std::sqrt(s.ffn));
  }
}

void add_conv(TensorFile& file, const std::string& name, Shape shape, std::int64_t outputs,
              double fan_in) {
  file.add(name + ".weight", std::move(shape), 1 / std::sqrt(fan_in));
  file.add(name + ".bias", {outputs}, 0.02);
}

// Snake, transposed convolution and three residual units (specification 8.1).
void add_codec_block(TensorFile& file, const std::string& name, std::int64_t in,
                     std::int64_t stride) {
  const std::int64_t out = in / 2;
  file.add(name + ".snake1.alpha", {1, in, 1}, 0.2, 1);
  add_conv(file, name + ".conv_t1", {in, out, 2 * stride}, out, 2.0 * static_cast<double>(in));
  for (const char* unit : {".res_unit1", ".res_unit2", ".res_unit3"}) {
    const double width = static_cast<double>(out);
    file.add(name + unit + ".snake1.alpha", {1, out, 1}, 0.2, 1);
    add_conv(file, name + unit + ".conv1", {out, out, 7}, out, 7 * width);
    file.add(name + unit + ".snake2.alpha", {1, out, 1}, 0.2, 1);
    add_conv(file, name + unit + ".conv2", {out, out, 1}, out, 9 * width);
  }
}

}  // namespace

RandomLmShape released_lm_shape() {
  return {.hidden = 3072,
          .layers = 28,
          .heads = 24,
          .kv_heads = 8,
          .head_dim = 128,
          .ffn = 8192,
          .vocab = 128256,
          .codebook_size = 1024};
}

RandomLmShape demo_lm_shape() {
  return {.hidden = 256,
          .layers = 8,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 64,
          .ffn = 640,
          .vocab = 288,
          .codebook_size = 256};
}

RandomCodecShape released_codec_shape() {
  return {.decoder_hidden = 1024,
          .latent = 256,
          .fused = 1024,
          .codebook_size = 1024,
          .codebook_dim = 64};
}

RandomCodecShape demo_codec_shape() {
  return {
      .decoder_hidden = 320, .latent = 64, .fused = 128, .codebook_size = 256, .codebook_dim = 16};
}

void write_random_lm(const std::string& directory, const RandomLmShape& shape, DType dtype,
                     std::uint64_t seed) {
  std::filesystem::create_directories(directory);
  TensorFile file(dtype, seed);
  const std::int64_t vocab = shape.codebook_size + 2;
  const std::int64_t rows = shape.num_codebooks * vocab;
  const double from_hidden = 1 / std::sqrt(shape.hidden);
  file.add("model.embed_tokens.weight", {shape.vocab, shape.hidden}, 1);
  file.add("model.embed_audio_tokens.embed_audio_tokens.weight", {rows, shape.hidden},
           1 / std::sqrt(shape.num_codebooks));
  for (std::int32_t layer = 0; layer < shape.layers; ++layer) {
    add_layer(file, shape, "model.layers." + std::to_string(layer) + ".");
  }
  file.add("model.norm.weight", {shape.hidden}, 0.2, 1);
  file.add("audio_lm_head.weight", {rows, shape.hidden}, 2 * from_hidden, 0,
           shape.endless ? vocab : 0);
  file.add("text_lm_head.weight", {shape.vocab, shape.hidden}, from_hidden);
  file.write(directory + "/model.safetensors");
  write_text(directory + "/config.json", lm_config(shape, dtype));
}

void write_random_codec(const std::string& directory, const RandomCodecShape& shape,
                        std::uint64_t seed) {
  std::filesystem::create_directories(directory);
  TensorFile file(DType::kF32, seed);
  for (std::int32_t k = 0; k < shape.num_codebooks; ++k) {
    const std::string name = "quantizer.quantizers." + std::to_string(k);
    file.add(name + ".codebook.embed", {shape.codebook_size, shape.codebook_dim}, 1);
    add_conv(file, name + ".project_out", {shape.fused, shape.codebook_dim}, shape.fused,
             8.0 * shape.codebook_dim);
  }
  add_conv(file, "fc2", {shape.latent, shape.fused}, shape.latent, shape.fused);
  std::int64_t width = shape.decoder_hidden;
  add_conv(file, "acoustic_decoder.conv1", {width, shape.latent, 7}, width, 7.0 * shape.latent);
  const std::int64_t strides[] = {8, 5, 4, 2, 3};
  for (std::size_t block = 0; block < 5; ++block, width /= 2) {
    add_codec_block(file, "acoustic_decoder.block." + std::to_string(block), width, strides[block]);
  }
  file.add("acoustic_decoder.snake1.alpha", {1, width, 1}, 0.2, 1);
  add_conv(file, "acoustic_decoder.conv2", {1, width, 7}, 1, 49.0 * static_cast<double>(width));
  file.write(directory + "/model.safetensors");
  write_text(directory + "/config.json", codec_config(shape));
}

}  // namespace higgs_rt
