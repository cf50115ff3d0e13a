// The batched codec decoder on the GPU. Needs a build with CUDA and a GPU.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "bench/random_checkpoint.h"
#include "check.h"
#include "few.h"
#include "higgs_rt/error.h"
#include "model/codec_decoder.h"
#include "model/codec_fixture.h"
#include "model/codec_window.h"
#include "model/edited_checkpoint.h"
#include "model/receptive_field.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

const std::string kGolden = std::string(HIGGS_RT_GOLDEN_DIR) + "/codec/";
const std::string kDemo =
    std::string(HIGGS_RT_GOLDEN_DIR) + "/../../python/higgs_rt/data/demo/codec";

std::unique_ptr<Device> gpu_or_skip(Priority priority = Priority::kHigh) {
  try {
    return make_cuda_device(0, priority);
  } catch (const Error& error) {
    SKIP(error.what());
  }
}

std::vector<std::int32_t> random_codes(const CodecSpec& spec, std::int32_t frames,
                                       std::mt19937& random) {
  std::uniform_int_distribution<std::int32_t> draw(0, spec.codebook_size - 1);
  std::vector<std::int32_t> codes(static_cast<std::size_t>(spec.num_codebooks * frames));
  std::generate(codes.begin(), codes.end(), [&] { return draw(random); });
  return codes;
}

struct Difference {
  double largest = 0;
  double ratio = 0;  // signal to noise, dB
};

Difference compare(const std::vector<float>& actual, const std::vector<float>& expected) {
  Difference difference;
  double signal = 0, noise = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = static_cast<double>(actual[i]) - expected[i];
    difference.largest =
        std::isnan(error) ? INFINITY : std::max(difference.largest, std::abs(error));
    signal += static_cast<double>(expected[i]) * expected[i];
    noise += error * error;
  }
  difference.ratio = 10 * std::log10(signal / noise);
  return difference;
}

// CUDA in both precisions against the CPU.
void compare_with_cpu(const char* name, const std::string& directory,
                      const std::vector<std::int32_t>& codes, double least_ratio) {
  Codec cpu(directory, make_cpu_device(), CodecPrecision::kFloat);
  const auto expected = cpu.decode(codes);
  const auto plain =
      compare(Codec(directory, gpu_or_skip(), CodecPrecision::kFloat).decode(codes), expected);
  const auto half =
      compare(Codec(directory, gpu_or_skip(), CodecPrecision::kHalf).decode(codes), expected);
  std::cout << "  " << name << ": fp32 " << plain.largest << " (" << plain.ratio << " dB), fp16 "
            << half.largest << " (" << half.ratio << " dB)\n";
  EXPECT(plain.ratio > 100);
  EXPECT(half.ratio > least_ratio);
}

// A part of an utterance with its context, as a stream sends it.
struct Part {
  std::size_t utterance;
  std::vector<std::int32_t> codes;
  std::int32_t num_frames, begin, end;  // within the part
  std::size_t first_sample;             // within the utterance
  std::vector<float> pcm;
};

struct Utterance {
  std::vector<std::int32_t> codes;
  std::int32_t frames = 0;
  std::vector<float> whole;
};

Part cut_part(const CodecSpec& spec, const Utterance& utterance, std::size_t index,
              std::int32_t begin, std::int32_t end) {
  const std::int32_t from = std::max(0, begin - spec.context_frames);
  const std::int32_t to = std::min(utterance.frames, end + spec.context_frames);
  Part part{index, {}, to - from, begin - from, end - from, 0, {}};
  for (std::int32_t k = 0; k < spec.num_codebooks; ++k) {
    const auto row = utterance.codes.begin() + k * utterance.frames;
    part.codes.insert(part.codes.end(), row + from, row + to);
  }
  part.first_sample = static_cast<std::size_t>(begin * spec.samples_per_frame);
  part.pcm.assign(static_cast<std::size_t>((end - begin) * spec.samples_per_frame), NAN);
  return part;
}

// Parts in random batches of one batch_size().
void decode_parts(CodecDecoder& decoder, std::vector<Part>& parts, std::mt19937& random) {
  std::shuffle(parts.begin(), parts.end(), random);
  std::stable_sort(parts.begin(), parts.end(), [&](const Part& a, const Part& b) {
    return decoder.batch_size(a.end - a.begin) < decoder.batch_size(b.end - b.begin);
  });
  for (std::size_t i = 0; i < parts.size();) {
    const std::int32_t size = decoder.batch_size(parts[i].end - parts[i].begin);
    const auto limit =
        static_cast<std::size_t>(1 + random() % static_cast<unsigned>(decoder.batch_jobs(size)));
    std::vector<CodecDecoder::Job> jobs;
    for (; i < parts.size() && jobs.size() < limit &&
           decoder.batch_size(parts[i].end - parts[i].begin) == size;
         ++i) {
      Part& part = parts[i];
      jobs.push_back({part.codes, part.num_frames, part.begin, part.end, part.pcm});
    }
    decoder.start(jobs);
    decoder.finish();
  }
}

}  // namespace

TEST("codec window: keeps every row that the samples need") {
  const std::vector<std::int32_t> ratios = {8, 5, 4, 2, 3};
  for (const std::int32_t frames : {1, 8, 16, 24, 32, 48, 64}) {
    const CodecWindow window = codec_window(ratios, frames);
    EXPECT_EQ(window.begin, -10);
    EXPECT_EQ(window.rows, frames + 20);
    EXPECT_EQ(window.blocks.back().rate, 960);
    const auto needed = needed_inputs(ratios, {0, std::int64_t{frames} * 960 - 1});
    std::int32_t rows = window.rows;
    for (std::size_t i = 0; i < ratios.size(); ++i) {
      const CodecWindow::Block& block = window.blocks[i];
      EXPECT_EQ(block.in_rows, rows);
      EXPECT(block.in_begin >= 0 && block.in_begin + block.rows <= rows);
      rows = block.rows * ratios[i];
      EXPECT(block.out_begin <= needed[2 + i].first);
      EXPECT(block.out_begin + rows > needed[2 + i].last);
    }
    EXPECT(window.last_begin >= 0 && window.last_begin + frames * 960 + 6 <= rows);
  }
}

TEST("cuda codec decoder: agrees with the CPU's") {
  gpu_or_skip();
  std::mt19937 random(11);
  const StoredTensors stored = read_tensors(kGolden);
  compare_with_cpu("golden, 1 frame", kGolden + "transformers",
                   golden<std::int32_t>(stored, "codes_1"), 45);
  compare_with_cpu("golden, speech", kGolden + "transformers",
                   golden<std::int32_t>(stored, "speech_codes"), 40);
  if (few_only()) return;
  compare_with_cpu("demo voice, speech", kDemo, golden<std::int32_t>(stored, "demo_codes"), 60);
  const TemporaryDirectory directory;
  write_random_codec(directory.path(), released_codec_shape(), 3);
  const CodecSpec spec = {8, 1024, 24000, 960, 10};
  compare_with_cpu("released shape, random", directory.path(), random_codes(spec, 90, random), 40);
}

TEST("cuda codec decoder: any parts in any batches give the bits of the whole") {
  const TemporaryDirectory directory;
  write_random_codec(directory.path(), released_codec_shape(), 5);
  for (const std::string& path : std::vector<std::string>{kDemo, directory.path()}) {
    Codec codec(path, gpu_or_skip(), CodecPrecision::kHalf);
    const CodecSpec& spec = codec.decoder->spec();
    std::mt19937 random(23);
    std::vector<Utterance> utterances;
    std::vector<Part> parts;
    for (std::size_t i = 0; i < (few_only() ? 1 : 40); ++i) {
      Utterance utterance;
      utterance.frames = static_cast<std::int32_t>(1 + random() % (few_only() ? 12 : 150));
      utterance.codes = random_codes(spec, utterance.frames, random);
      utterance.whole = codec.decode(utterance.codes);
      for (std::int32_t begin = 0; begin < utterance.frames;) {
        const auto size = static_cast<std::int32_t>(1 + random() % (random() % 2 == 0 ? 64 : 9));
        const std::int32_t end = std::min(begin + size, utterance.frames);
        parts.push_back(cut_part(spec, utterance, i, begin, end));
        begin = end;
      }
      utterances.push_back(std::move(utterance));
    }
    // Beside other work kernels start in another way (half_launch.cuh).
    Codec beside(path, gpu_or_skip(Priority::kLow), CodecPrecision::kHalf);
    for (CodecDecoder* decoder : {codec.decoder.get(), beside.decoder.get()}) {
      decode_parts(*decoder, parts, random);
      std::size_t wrong = 0;
      for (Part& part : parts) {
        const float* whole = utterances[part.utterance].whole.data() + part.first_sample;
        wrong += std::memcmp(whole, part.pcm.data(), part.pcm.size() * sizeof(float)) != 0;
        std::ranges::fill(part.pcm, NAN);
      }
      std::cout << "  " << parts.size() << " parts, " << wrong << " differ\n";
      EXPECT_EQ(wrong, 0u);
    }
  }
}

TEST("cuda codec decoder: wrong batches are refused, and the next one works") {
  Codec codec(kDemo, gpu_or_skip(), CodecPrecision::kHalf);
  const CodecSpec& spec = codec.decoder->spec();
  std::mt19937 random(2);
  const auto codes = random_codes(spec, 30, random);
  std::vector<float> pcm(static_cast<std::size_t>(30 * spec.samples_per_frame));
  const std::span<float> all(pcm);
  const auto job = [&](std::int32_t begin, std::int32_t end) {
    return CodecDecoder::Job{
        codes, 30, begin, end,
        all.first(static_cast<std::size_t>((end - begin) * spec.samples_per_frame))};
  };
  const std::vector<CodecDecoder::Job> mixed = {job(0, 8), job(8, 30)};
  EXPECT_THROWS(codec.decoder->start(mixed), "jobs of one batch size");
  const std::vector<CodecDecoder::Job> outside = {job(28, 31)};
  EXPECT_THROWS(codec.decoder->start(outside), "in [0, 30], got [28, 31)");
  const std::vector<CodecDecoder::Job> right = {job(0, 30)};
  codec.decoder->start(right);
  codec.decoder->finish();
  EXPECT(pcm == codec.decode(codes));
}
