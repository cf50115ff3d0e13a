// From text to waveform with the packaged demo model, in C++ and through the C API.
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <future>
#include <sstream>

#include "api/support.h"
#include "check.h"
#include "higgs_rt/higgs_rt.h"
#include "higgs_rt/speaker.h"
#include "io/temporary_directory.h"

namespace higgs_rt::testing {
namespace {

constexpr const char* kModel = HIGGS_RT_GOLDEN_DIR "/../../python/higgs_rt/data/demo";
constexpr const char* kText = "The sun rises.";

RuntimeConfig demo_config() {
  RuntimeConfig config = small_config(kModel);
  config.max_sequence = 1024;
  return config;
}

const Speaker& demo() {
  static const auto speaker = Speaker::load(demo_config(), {.voices_dir = "/nowhere"});
  return *speaker;
}

std::string read_bytes(const std::string& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

std::string refusal(const std::string& text, const SpeakOptions& options = {}) {
  return thrown([&] { demo().request(text, options, false); });
}

TEST("a text is spoken whole and streamed, alike") {
  const SpeakOptions options{.voice = "slt", .seed = 3};
  const Speech speech = demo().speak(kText, options);
  EXPECT_EQ(speech.sample_rate, 24000);
  EXPECT(speech.finish == FinishReason::kStop);
  EXPECT(speech.pcm.size() > 12000 && speech.pcm.size() < 72000);
  EXPECT(speech.timing.finished > 0);
  const Answer streamed = read(demo().stream(kText, options));
  EXPECT(streamed.chunk_frames.size() > 1);
  EXPECT(streamed.pcm == speech.pcm);
  EXPECT(demo().speak(kText, {.voice = "slt", .seed = 4}).pcm != speech.pcm);
  EXPECT(demo().speak(kText, {.voice = "rms", .seed = 3}).pcm != speech.pcm);
}

TEST("threads speak at once as each alone") {
  std::vector<std::future<Speech>> running;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    running.push_back(std::async(std::launch::async, [seed] {
      return demo().speak(kText, {.voice = "awb", .seed = seed});
    }));
  }
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    EXPECT(running[seed].get().pcm == demo().speak(kText, {.voice = "awb", .seed = seed}).pcm);
  }
}

TEST("a cancelled stream ends as cancelled") {
  Stream stream = demo().stream(kText, {.max_seconds = 30, .first_chunk_frames = 1});
  Chunk chunk;
  EXPECT(stream.next(chunk));
  stream.cancel();
  EXPECT(read(stream).finish == FinishReason::kCancelled);
}

TEST("what cannot be spoken is refused by name") {
  const auto expect = [](const std::string& message, const char* part) {
    if (message.find(part) == std::string::npos) {
      report(__FILE__, __LINE__, "expected \"" + std::string(part) + "\", got \"" + message + "\"");
    }
  };
  expect(refusal(""), "[text] expected at least one word, got an empty string");
  expect(refusal("\xff"), "[text] expected UTF-8");
  expect(refusal("Hi <|eot_id|>"), "[text] expected no control tokens");
  expect(refusal("Hi \xe3\x80\x8a|eot_id|\xe3\x80\x8b"), "[text] expected no control tokens");
  expect(refusal(std::string(61, 'a')), "[text] expected at most 60 characters (max_turn_chars)");
  expect(refusal("It is 5."), "[text] expected numbers, symbols and abbreviations spelled out");
  expect(refusal("[SPEAKER0] Hi."), "[text] expected no [SPEAKERn] tags");
  expect(refusal("Hi.", {.voice = "eve"}), "(awb, kal16, rms, slt), got eve");
  expect(refusal("Hi.", {.voice = "slt", .speakers = {{"rms", ""}}}), "[voice, speakers]");
  expect(refusal("Hi.", {.speakers = {{"rms", "deep"}}}), "got both");
  expect(refusal("Hi.", {.scene = "..."}), "[scene] expected at least one letter or digit");
  expect(refusal("Hi.", {.max_seconds = 1000}), "[max_seconds] expected more than 0 and at most");
  expect(thrown([] { demo().stream("Hi.", {.adapter = "x"}); }), "[submit] adapter: expected none");
  EXPECT_EQ(refusal("It is 5.", {.spelled_out = true}), "");
  EXPECT_EQ(refusal(std::string(61, 'a'), {.max_turn_chars = 0}), "");
  expect(thrown([] { Speaker::load(small_config(endless_model())); }), "tokenizer.json");
  RuntimeConfig none = demo_config();
  none.codec_dir = "none";
  expect(thrown([&] { Speaker::load(none); }), "[codec_dir] expected a codec to speak with");
}

TEST("a voice of another codec is refused") {
  const TemporaryDirectory folder;
  std::string bytes = read_bytes(std::string(kModel) + "/voices/slt.voice.safetensors");
  const std::string field = "\"codec\":\"";
  const std::size_t at = bytes.find(field);
  REQUIRE(at != std::string::npos);
  char& digit = bytes[at + field.size()];
  digit = digit == '0' ? '1' : '0';
  folder.write("other.voice.safetensors", bytes);
  const auto speaker = Speaker::load(demo_config(), {.voices_dir = folder.path()});
  EXPECT_THROWS(speaker->voice("other"), "expected codes of codec");
  EXPECT_THROWS(speaker->voice("other"), "add the recording again with this codec");
  EXPECT_EQ(speaker->voice("slt").num_codebooks, 8);
}

TEST("a forked child is told to load anew, and can drop what it inherited") {
  auto speaker = Speaker::load(demo_config(), {.voices_dir = "/nowhere"});
  Stream stream = speaker->stream(kText, {.voice = "slt"});
  const ::pid_t child = ::fork();
  if (child == 0) {
    const std::string message = thrown([&] { speaker->speak(kText); });
    stream = {};
    speaker.reset();
    ::_exit(message.find("load after forking") == std::string::npos ? 1 : 0);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT(read(stream).finish == FinishReason::kStop);
}

TEST("the C API speaks the same") {
  const Speech expected = demo().speak(kText, {.voice = "slt", .seed = 3});
  higgs_runtime_config config;
  higgs_runtime_config_init(&config, sizeof config);
  config.model_dir = kModel;
  config.num_threads = 2;
  higgs_speaker_config own;
  higgs_speaker_config_init(&own, sizeof own);
  own.voices_dir = "/nowhere";
  higgs_speaker* speaker = nullptr;
  EXPECT_EQ(higgs_speaker_load(&config, &own, &speaker), HIGGS_OK);
  REQUIRE(speaker != nullptr);
  char name[65];
  EXPECT_EQ(higgs_speaker_voice_name(speaker, 3, name, sizeof name), HIGGS_OK);
  EXPECT_EQ(std::string(name), "slt");
  EXPECT_EQ(higgs_speaker_voice_name(speaker, 3, name, 3), HIGGS_INVALID_ARGUMENT);
  EXPECT_EQ(higgs_speaker_voice_name(speaker, 4, name, sizeof name), HIGGS_END);

  higgs_speak_options options;
  EXPECT_EQ(higgs_speak_options_init(speaker, &options, sizeof options), HIGGS_OK);
  EXPECT_NEAR(options.temperature, 0.2, 1e-6);
  options.voice = "slt";
  options.seed = 3;
  higgs_stream* stream = nullptr;
  EXPECT_EQ(higgs_speak(speaker, kText, &options, &stream), HIGGS_OK);
  std::vector<float> pcm;
  higgs_chunk chunk{};
  chunk.struct_size = sizeof chunk;
  while (higgs_stream_next(stream, -1, &chunk) == HIGGS_OK) {
    pcm.insert(pcm.end(), chunk.pcm, chunk.pcm + chunk.num_samples);
  }
  EXPECT(pcm == expected.pcm);
  higgs_stream_free(stream);

  EXPECT_EQ(higgs_speak(speaker, "It is 5.", nullptr, &stream), HIGGS_UNSUPPORTED);
  EXPECT(std::strstr(higgs_last_error(), "[text] expected numbers") != nullptr);
  EXPECT(stream == nullptr);
  options.adapter = "x";
  EXPECT_EQ(higgs_speak(speaker, kText, &options, &stream), HIGGS_INVALID_ARGUMENT);
  EXPECT(std::strstr(higgs_last_error(), "[submit] adapter: expected none") != nullptr);
  options.adapter = nullptr;
  options.voice = "eve";
  EXPECT_EQ(higgs_speak(speaker, kText, &options, &stream), HIGGS_NOT_FOUND);
  EXPECT_EQ(higgs_speak(speaker, nullptr, nullptr, &stream), HIGGS_INVALID_ARGUMENT);
  higgs_stats stats{};
  stats.struct_size = sizeof stats;
  EXPECT_EQ(higgs_runtime_stats(higgs_speaker_runtime(speaker), &stats), HIGGS_OK);
  EXPECT_EQ(stats.finished, 1);
  higgs_speaker_free(speaker);
}

}  // namespace
}  // namespace higgs_rt::testing
