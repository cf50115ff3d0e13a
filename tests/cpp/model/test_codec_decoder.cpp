// The native codec decoder against transformers (tests/golden/make_codec_golden.py).
#include <algorithm>
#include <array>
#include <cstring>
#include <random>

#include "check.h"
#include "model/codec_decoder.h"
#include "model/codec_fixture.h"
#include "model/edited_checkpoint.h"
#include "model/receptive_field.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

const std::string kGolden = std::string(HIGGS_RT_GOLDEN_DIR) + "/codec/";

std::vector<std::int32_t> random_codes(const CodecSpec& spec, std::int32_t frames) {
  std::mt19937 random(7);
  std::uniform_int_distribution<std::int32_t> draw(0, spec.codebook_size - 1);
  std::vector<std::int32_t> codes(static_cast<std::size_t>(spec.num_codebooks * frames));
  std::generate(codes.begin(), codes.end(), [&] { return draw(random); });
  return codes;
}

// Frames [from, to) of codes with `frames` frames.
std::vector<std::int32_t> frames_of(const std::vector<std::int32_t>& codes, std::int32_t frames,
                                    std::int32_t from, std::int32_t to) {
  std::vector<std::int32_t> out;
  for (auto row = codes.begin(); row != codes.end(); row += frames) {
    out.insert(out.end(), row + from, row + to);
  }
  return out;
}

}  // namespace

TEST("codec: receptive field of the released ratios (specification 8.2)") {
  const std::vector<std::int32_t> ratios = {8, 5, 4, 2, 3};
  for (std::int64_t offset = 0; offset < 960; ++offset) {
    const TimeRange range = needed_inputs(ratios, {offset, offset}).front();
    EXPECT_EQ(range.first, offset < 793 ? -10 : -9);
    EXPECT_EQ(range.last, offset < 142 ? 9 : 10);
  }
  EXPECT_EQ(context_frames(ratios), 10);
}

TEST("codec: waveform equal to transformers' in both layouts") {
  const StoredTensors expected = read_tensors(kGolden);
  for (const std::string layout : {"transformers", "original"}) {
    Codec codec(kGolden + layout, make_cpu_device());
    EXPECT_EQ(codec.decoder->spec().context_frames, 10);
    EXPECT_EQ(codec.decoder->spec().samples_per_frame, 960);
    EXPECT_EQ(codec.decoder->spec().num_codebooks, 8);
    float largest = 0;
    for (const auto& [codes, waveform] : {std::pair{"codes_1", "wave_1"},
                                          {"codes_7", "wave_7"},
                                          {"codes_40", "wave_40"},
                                          {"speech_codes", "speech_wave"}}) {
      const auto pcm = codec.decode(golden<std::int32_t>(expected, codes));
      const auto wave = golden<float>(expected, waveform);
      REQUIRE(pcm.size() == wave.size());
      for (std::size_t i = 0; i < wave.size(); ++i) {
        largest = std::max(largest, std::abs(pcm[i] - wave[i]));
      }
    }
    std::cout << "  " << layout << ": largest difference " << largest << '\n';
    EXPECT(largest <= 1e-4f);
  }
}

TEST("codec: chunks with 10 frames of context equal to the whole, bit for bit; 9 are too few") {
  Codec codec(kGolden + "transformers", make_cpu_device());
  constexpr std::int32_t kFrames = 75;
  const auto codes = random_codes(codec.decoder->spec(), kFrames);
  const auto whole = codec.decode(codes);
  const auto chunked = [&](std::int32_t context) {
    std::vector<float> out;
    std::int32_t size = 1;
    for (std::int32_t begin = 0; begin < kFrames; begin += size, size *= 2) {
      const std::int32_t end = std::min(begin + size, kFrames);
      const std::int32_t from = std::max(begin - context, 0);
      const std::int32_t to = std::min(end + context, kFrames);
      const auto pcm = codec.decode(frames_of(codes, kFrames, from, to));
      out.insert(out.end(), pcm.begin() + (begin - from) * 960, pcm.begin() + (end - from) * 960);
    }
    return out;
  };
  EXPECT(chunked(10) == whole);
  EXPECT(chunked(9) != whole);
}

TEST("codec: a range of frames equal to the same frames of the whole, bit for bit") {
  Codec codec(kGolden + "transformers", make_cpu_device());
  constexpr std::int32_t kFrames = 40;
  const auto codes = random_codes(codec.decoder->spec(), kFrames);
  const auto whole = codec.decode(codes);
  for (const auto& [begin, end] :
       {std::pair{0, 1}, {0, 40}, {39, 40}, {3, 11}, {12, 13}, {25, 33}, {7, 7}}) {
    std::vector<float> pcm(static_cast<std::size_t>(end - begin) * 960);
    codec.decoder->decode_range(codes, kFrames, begin, end, pcm);
    EXPECT(std::equal(pcm.begin(), pcm.end(), whole.begin() + begin * 960));
  }
}

TEST("codec: long utterances go block by block with the same samples") {
  Codec codec(kGolden + "transformers", make_cpu_device());
  constexpr std::int32_t kFrames = 300;  // more than two blocks of 128
  const auto codes = random_codes(codec.decoder->spec(), kFrames);
  const auto whole = codec.decode(codes);
  const auto middle = codec.decode(frames_of(codes, kFrames, 110, 160));
  EXPECT(std::equal(middle.begin() + 10 * 960, middle.end() - 10 * 960, whole.begin() + 120 * 960));
}

TEST("codec: wrong input is refused") {
  Codec codec(kGolden + "transformers", make_cpu_device());
  auto codes = random_codes(codec.decoder->spec(), 3);
  std::vector<float> pcm(3 * 960);
  EXPECT_THROWS(codec.decoder->decode(codes, 4, pcm), "expected 8 x 4 codes, got 24");
  EXPECT_THROWS(codec.decoder->decode(codes, 3, std::span(pcm).first(9)), "room for 2880 samples");
  EXPECT_THROWS(codec.decoder->decode_range(codes, 3, 2, 4, pcm), "in [0, 3], got [2, 4)");
  codes[7] = 32;
  EXPECT_THROWS(codec.decoder->decode(codes, 3, pcm), "[0, 32), got 32 in codebook 2, frame 1");
  codec.decoder->decode({}, 0, {});
}

TEST("codec: bf16 weights, and weight norm under the newer name") {
  const TemporaryDirectory directory;
  StoredTensors tensors = read_tensors(kGolden + "original");
  StoredTensors renamed;
  for (auto& [name, tensor] : tensors) {
    std::string to = name;
    if (name.ends_with("weight_g"))
      to = replaced(name, "weight_g", "parametrizations.weight.original0");
    if (name.ends_with("weight_v"))
      to = replaced(name, "weight_v", "parametrizations.weight.original1");
    renamed[to] = tensor;
  }
  write_tensors(directory, renamed);
  directory.write("config.json", read_text(kGolden + "original/config.json"));
  Codec original(kGolden + "original", make_cpu_device());
  const auto codes = random_codes(original.decoder->spec(), 5);
  const auto expected = original.decode(codes);
  EXPECT(Codec(directory.path(), make_cpu_device()).decode(codes) == expected);

  for (auto& [name, tensor] : renamed) {
    std::string halves;
    for (std::size_t i = 0; i < tensor.bytes.size(); i += 4) {
      float value = 0;
      std::memcpy(&value, tensor.bytes.data() + i, 4);
      const BF16 half = to_bf16(value);
      halves.append(reinterpret_cast<const char*>(&half), sizeof(half));
    }
    tensor = {"BF16", tensor.shape, halves};
  }
  write_tensors(directory, renamed);
  const auto rounded = Codec(directory.path(), make_cpu_device()).decode(codes);
  float largest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(rounded[i] - expected[i]));
  }
  EXPECT(largest > 0 && largest < 0.2f);
}

TEST("codec: malformed checkpoints are refused by field or tensor") {
  const std::string source = kGolden + "transformers";
  const auto refused = [&](auto&& change, const std::string& from, const std::string& to,
                           const std::string& part) {
    const TemporaryDirectory directory;
    StoredTensors tensors = read_tensors(source);
    change(tensors);
    write_tensors(directory, tensors);
    const std::string config = read_text(source + "/config.json");
    directory.write("config.json", from.empty() ? config : replaced(config, from, to));
    EXPECT_THROWS(Codec(directory.path(), make_cpu_device()), part);
  };
  const auto nothing = [](StoredTensors&) {};
  refused(nothing, "\"higgs_audio_v2_tokenizer\"", "\"dac\"", "[config.json:model_type]");
  refused(nothing, "\"codebook_size\": 32", "\"codebook_size\": 64",
          "codebook.embed] expected shape [64, 8], got [32, 8]");
  refused(nothing, "\"sample_rate\"", "\"rate\"", "[config.json:sample_rate]");
  refused(nothing, "\"upsampling_ratios\"", "\"up\"", ":upsampling_ratios] expected an array");
  refused(nothing, "\"decoder_hidden_size\": 32", "\"decoder_hidden_size\": 40", "divisible by 32");
  refused([](StoredTensors& t) { t.erase("acoustic_decoder.block.2.res_unit2.conv1.weight"); }, "",
          "", "expected tensor acoustic_decoder.block.2.res_unit2.conv1.weight, got none");
  refused([](StoredTensors& t) { t.erase("quantizer.quantizers.3.project_out.weight"); }, "", "",
          "expected tensor quantizer.quantizers.3.project_out.weight, got none");
  refused(
      [](StoredTensors& t) {
        t.at("fc2.bias").dtype = "F16";
        t.at("fc2.bias").bytes.resize(32);
      },
      "", "", "fc2.bias] expected dtype F32 or BF16, got F16");
  refused([](StoredTensors& t) { t.at("acoustic_decoder.snake1.alpha").shape = {1}; }, "", "",
          "acoustic_decoder.snake1.alpha] expected shape [1, 1, 1], got [1]");
  for (const std::string extra :
       {"foo", "acoustic_decoder.block.5.snake1.alpha", "quantizer.quantizers.0.codebook.scale"}) {
    refused([&](StoredTensors& t) { t[extra] = t.at("fc2.bias"); }, "", "",
            "expected no other tensors than the codec's, got " + extra);
  }
  const TemporaryDirectory pickle;
  pickle.write("model.pth", "x");
  EXPECT_THROWS(Codec(pickle.path(), make_cpu_device()), "got only model.pth");
}
