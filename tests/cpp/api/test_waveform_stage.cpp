// The stage with a codec that decodes batches: same chunks as one by one, first chunks first.
#include "api/waveform_stage.h"

#include <atomic>
#include <random>

#include "check.h"
#include "core/check.h"

namespace higgs_rt::testing {
namespace {

constexpr std::int32_t kBooks = 2;
constexpr std::int32_t kCodes = 100;
constexpr std::int32_t kHop = 4;  // samples per frame
constexpr std::int32_t kContext = 2;

// A sample is the sum of the codes around it over 1,000, so that missing context shows.
class FakeDecoder final : public CodecDecoder {
 public:
  explicit FakeDecoder(std::int32_t jobs) : jobs_(jobs) {}

  const CodecSpec& spec() const override { return spec_; }
  std::int32_t batch_size(std::int32_t frames) const override { return frames <= 4 ? 4 : 64; }
  std::int32_t batch_jobs(std::int32_t) const override { return jobs_; }

  void decode_range(std::span<const std::int32_t> codes, std::int32_t num_frames,
                    std::int32_t begin, std::int32_t end, std::span<float> pcm) override {
    for (std::int32_t t = begin; t < end; ++t) {
      std::int32_t sum = 0;
      for (std::int32_t i = t - kContext; i <= t + kContext; ++i) {
        if (i >= 0 && i < num_frames) sum += codes[static_cast<std::size_t>(i)];
      }
      check(sum != 7, "codec", "expected another sum, got ", sum);
      const auto at = static_cast<std::size_t>((t - begin) * kHop);
      for (std::size_t s = 0; s < kHop; ++s) {
        pcm[at + s] = static_cast<float>(sum) / 1000.0F;
      }
    }
  }
  void start(std::span<const Job> jobs) override {
    open.wait(false);
    EXPECT(running_.empty());
    EXPECT(std::ssize(jobs) <= jobs_);
    for (const Job& job : jobs) {
      EXPECT_EQ(batch_size(job.end - job.begin), batch_size(jobs[0].end - jobs[0].begin));
    }
    largest = std::max<std::ptrdiff_t>(largest, std::ssize(jobs));
    running_.assign(jobs.begin(), jobs.end());
  }
  void finish() override {
    for (const Job& job : std::exchange(running_, {})) {
      longest = std::max(longest, job.end - job.begin);
      decode_range(job.codes, job.num_frames, job.begin, job.end, job.pcm);
    }
  }

  bool running() const { return !running_.empty(); }

  std::atomic<bool> open{true};  // start() waits until it is
  std::ptrdiff_t largest = 0;
  std::int32_t longest = 0;  // frames of a job

 private:
  const CodecSpec spec_ = {kBooks, kCodes, 24000, kHop, kContext};
  const std::int32_t jobs_;
  std::vector<Job> running_;
};

SpeechStreamConfig config(bool stream, WaveformStage& stage) {
  return {.output = OutputKind::kWaveform,
          .stream = stream,
          .first_chunk_frames = 2,
          .max_chunk_frames = 70,
          .max_buffered_chunks = 1000,
          .num_codebooks = kBooks,
          .codebook_size = kCodes,
          .wake_executor = [] {},
          .wake_stage = [&stage] { stage.notify(); }};
}

// Codebook 0 of frame t is first[t]; codebook 1 is zero.
void feed(SpeechStream& stream, const std::vector<std::int32_t>& first) {
  const auto count = std::ssize(first);
  for (std::ptrdiff_t c = 0; c < count + 2; ++c) {
    const bool early = c == 0, late = c > count;
    const std::int32_t a = early  ? kCodes
                           : late ? kCodes + 1
                                  : first[static_cast<std::size_t>(c - 1)];
    const std::vector<std::int32_t> column = {a, c < 2 ? kCodes : 0};
    stream.source()->on_column(column, false);
  }
  stream.source()->on_finish(FinishReason::kStop, "");
}

std::vector<float> expected_pcm(const std::vector<std::int32_t>& first) {
  FakeDecoder decoder(1);
  std::vector<std::int32_t> codes = first;
  codes.resize(2 * first.size(), 0);
  std::vector<float> pcm(first.size() * kHop);
  decoder.decode(codes, static_cast<std::int32_t>(first.size()), pcm);
  return pcm;
}

}  // namespace

TEST("a stage with batches makes the chunks that one block at a time makes") {
  auto decoder = std::make_unique<FakeDecoder>(5);
  FakeDecoder& fake = *decoder;
  fake.open = false;  // until all have work
  Codec codec(std::move(decoder));
  WaveformStage stage(&codec);
  std::mt19937 random(4);
  std::vector<std::vector<std::int32_t>> texts;
  std::vector<std::shared_ptr<SpeechStream>> streams;
  std::vector<std::vector<float>> heard(30);
  for (std::size_t i = 0; i < heard.size(); ++i) {
    std::vector<std::int32_t> first(1 + random() % 300);
    for (auto& code : first) code = static_cast<std::int32_t>(20 + random() % 79);
    const auto stream = std::make_shared<SpeechStream>(config(i % 3 != 0, stage), &codec);
    if (i % 2 == 0) {
      stream->set_callback([&heard, i](const Chunk& chunk) {
        EXPECT_EQ(std::ssize(chunk.pcm), chunk.num_frames * kHop);
        heard[i].insert(heard[i].end(), chunk.pcm.begin(), chunk.pcm.end());
      });
    }
    feed(*stream, first);
    stage.add(stream);
    texts.push_back(std::move(first));
    streams.push_back(stream);
  }
  fake.open = true;
  fake.open.notify_one();
  for (std::size_t i = 1; i < heard.size(); i += 2) {
    Chunk chunk;
    std::int32_t wanted = 2;
    while (streams[i]->next(chunk, std::nullopt) == Stream::Poll::kChunk) {
      if (!chunk.last && i % 3 != 0) EXPECT_EQ(chunk.num_frames, wanted);
      wanted = std::min(2 * wanted, 70);
      heard[i].insert(heard[i].end(), chunk.pcm.begin(), chunk.pcm.end());
    }
  }
  while (std::any_of(streams.begin(), streams.end(), [](const auto& s) { return !s->done(); })) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  stage.shutdown();
  for (std::size_t i = 0; i < heard.size(); ++i) EXPECT(heard[i] == expected_pcm(texts[i]));
  EXPECT(fake.largest > 1);
}

TEST("blocks are longer where several answers, and only such, come whole") {
  const std::vector<std::int32_t> text(300, 30);
  const auto longest_with = [&](const std::vector<bool>& others) {
    auto decoder = std::make_unique<FakeDecoder>(1);
    FakeDecoder& fake = *decoder;
    Codec codec(std::move(decoder));
    WaveformStage stage(&codec);
    std::vector<std::shared_ptr<SpeechStream>> streams;
    streams.push_back(std::make_shared<SpeechStream>(config(false, stage), &codec));
    for (const bool stream : others) {
      streams.push_back(std::make_shared<SpeechStream>(config(stream, stage), &codec));
    }
    for (const auto& stream : streams) stage.add(stream);  // all before there is work
    for (const auto& stream : streams) {
      feed(*stream, text);
      std::vector<float> heard;
      Chunk chunk;
      while (stream->next(chunk, std::nullopt) == Stream::Poll::kChunk) {
        heard.insert(heard.end(), chunk.pcm.begin(), chunk.pcm.end());
      }
      EXPECT(heard == expected_pcm(text));
    }
    stage.shutdown();
    return fake.longest;
  };
  EXPECT_EQ(longest_with({}), Codec::kBlockFrames);
  EXPECT_EQ(longest_with({false}), 2 * Codec::kBlockFrames);
  EXPECT_EQ(longest_with({true}), Codec::kBlockFrames);
}

TEST("a failing block ends the streams of its batch with the error, and no others") {
  Codec codec(std::make_unique<FakeDecoder>(2));
  WaveformStage stage(&codec);
  const auto bad = std::make_shared<SpeechStream>(config(false, stage), &codec);
  feed(*bad, {7, 0, 0});
  stage.add(bad);
  Chunk chunk;
  EXPECT_THROWS(bad->next(chunk, std::nullopt), "expected another sum, got 7");
  const auto good = std::make_shared<SpeechStream>(config(false, stage), &codec);
  feed(*good, {1, 2, 3});
  stage.add(good);
  EXPECT(good->next(chunk, std::nullopt) == Stream::Poll::kChunk);
  EXPECT(chunk.last && chunk.finish == FinishReason::kStop);
  EXPECT(chunk.pcm == expected_pcm({1, 2, 3}));
}

TEST("a callback may use the codec while a batch is under way") {
  auto decoder = std::make_unique<FakeDecoder>(2);
  FakeDecoder& fake = *decoder;
  fake.open = false;
  Codec codec(std::move(decoder));
  WaveformStage stage(&codec);
  const std::vector<std::int32_t> text(300, 30);
  const auto speech = std::make_shared<SpeechStream>(config(false, stage), &codec);
  feed(*speech, text);
  stage.add(speech);  // its first block waits until the codec is open, others come behind it
  SpeechStreamConfig frames_config = config(true, stage);
  frames_config.output = OutputKind::kFrames;
  const auto frames = std::make_shared<SpeechStream>(frames_config, &codec);
  bool met = false;
  frames->set_callback([&](const Chunk&) {
    met = met || fake.running();
    stage.leave_codec();
    EXPECT(!fake.running());
    std::vector<float> pcm(3 * kHop);
    codec.decode(std::vector<std::int32_t>{1, 0, 2, 0, 3, 0}, 0, 3, pcm);
    EXPECT(pcm == expected_pcm({1, 2, 3}));
  });
  feed(*frames, text);
  stage.add(frames);
  fake.open = true;
  fake.open.notify_one();
  std::vector<float> heard;
  Chunk chunk;
  while (speech->next(chunk, std::nullopt) == Stream::Poll::kChunk) {
    heard.insert(heard.end(), chunk.pcm.begin(), chunk.pcm.end());
  }
  while (!frames->done()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  stage.shutdown();
  EXPECT(heard == expected_pcm(text));
  EXPECT(met);
}

TEST("a stage with batches ends its streams at shutdown") {
  Codec codec(std::make_unique<FakeDecoder>(2));
  WaveformStage stage(&codec);
  const auto open = std::make_shared<SpeechStream>(config(true, stage), &codec);
  stage.add(open);
  open->source()->on_finish(FinishReason::kCancelled, "");
  stage.shutdown();
  Chunk chunk;
  EXPECT(open->next(chunk, std::nullopt) == Stream::Poll::kChunk);
  EXPECT(chunk.last && chunk.finish == FinishReason::kCancelled);
}

}  // namespace higgs_rt::testing
