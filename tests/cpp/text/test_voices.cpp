// Voice files, their folders, settings and SHA-256.
#include <filesystem>

#include "check.h"
#include "io/sha256.h"
#include "io/temporary_directory.h"
#include "text/settings.h"
#include "text/text_rules.h"
#include "text/unicode.h"
#include "text/voice_file.h"

namespace higgs_rt {
namespace {

using testing::TemporaryDirectory;

// A voice file of codes [2, 3] 0..5 with `from` replaced by `to` in its header.
std::string write_voice(const TemporaryDirectory& folder, const std::string& name,
                        const std::string& from = "", const std::string& to = "") {
  std::string header =
      R"({"__metadata__": {"format": "higgs_rt.voice", "format_version": "1", "transcript": "Hi.",)"
      R"( "codec": "abc", "sample_rate": "24000", "samples_per_frame": "960", "created": "now",)"
      R"( "source": "a.wav"}, "codes": {"dtype": "I32", "shape": [2, 3], "data_offsets": [0, 24]}})";
  if (!from.empty()) header.replace(header.find(from), from.size(), to);
  std::string data;
  for (int code = 0; code < 6; ++code)
    data += std::string(1, static_cast<char>(code)) + std::string(3, '\0');
  return folder.write(name + ".voice.safetensors", testing::safetensors_bytes(header, data));
}

TEST("a voice file is read whole") {
  const TemporaryDirectory folder;
  const Voice voice = read_voice(write_voice(folder, "ann"));
  EXPECT_EQ(voice.name, "ann");
  EXPECT_EQ(voice.transcript, "Hi.");
  EXPECT_EQ(voice.num_codebooks, 2);
  EXPECT_EQ(voice.num_frames, 3);
  EXPECT_EQ(voice.samples_per_frame, 960);
  EXPECT(voice.codes == (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5}));
}

TEST("a faulty voice file is refused by its field") {
  const TemporaryDirectory folder;
  const auto read = [&](const char* from, const char* to) {
    return testing::thrown([&] { read_voice(write_voice(folder, "bad", from, to)); });
  };
  const auto expect = [&](const char* from, const char* to, const char* part) {
    const std::string message = read(from, to);
    if (message.find(part) == std::string::npos) testing::report(__FILE__, __LINE__, message);
  };
  expect("higgs_rt.voice", "other", "expected format higgs_rt.voice of a voice file, got other");
  expect("\"1\"", "\"2\"", "expected format_version 1");
  expect("\"Hi.\"", "\"\"", "expected the metadata field transcript, got none");
  expect("\"24000\"", "\"x\"", "expected a positive integer sample_rate, got x");
  expect("[2, 3]", "[6]", "of rank 1");
  expect("\"codes\": {", "\"others\": {", "expected one tensor, codes");
  expect("I32", "F32", "expected codes I32");
}

TEST("a voice of the user hides the model's of the same name") {
  const TemporaryDirectory user;
  const TemporaryDirectory model;
  std::filesystem::create_directory(model.path() + "/voices");
  const TemporaryDirectory elsewhere;
  write_voice(user, "ann");
  std::filesystem::copy_file(write_voice(elsewhere, "ann"),
                             model.path() + "/voices/ann.voice.safetensors");
  std::filesystem::copy_file(write_voice(elsewhere, "bob"),
                             model.path() + "/voices/bob.voice.safetensors");
  const VoiceFolders folders(user.path(), model.path());
  EXPECT(folders.names() == (std::vector<std::string>{"ann", "bob"}));
  EXPECT_EQ(folders.path("ann"), user.path() + "/ann.voice.safetensors");
  EXPECT_EQ(folders.path("bob"), model.path() + "/voices/bob.voice.safetensors");
  EXPECT_THROWS(folders.path("eve"), "expected one of the stored voices (ann, bob), got eve");
  EXPECT_THROWS(folders.path("../ann"), "beginning with a letter or digit, got '../ann'");
  EXPECT_THROWS(folders.path(""), "expected 1..64");
}

TEST("settings of a model: defaults, values and faults") {
  const TemporaryDirectory folder;
  EXPECT_EQ(read_settings(folder.path()).max_turn_chars, 400);
  folder.write("higgs_rt.json", R"({"max_turn_chars": 60, "dialogue": "voices", "top_p": 0.5})");
  const SpeechSettings settings = read_settings(folder.path());
  EXPECT_EQ(settings.max_turn_chars, 60);
  EXPECT_EQ(settings.dialogue, "voices");
  EXPECT_EQ(settings.top_p, 0.5F);
  folder.write("higgs_rt.json", R"({"max_turn_chars": 7})");
  EXPECT_THROWS(read_settings(folder.path()), "max_turn_chars] expected an integer >= 8, got 7");
  folder.write("higgs_rt.json", R"({"speed": 7})");
  EXPECT_THROWS(read_settings(folder.path()), "speed] expected no such field");
}

TEST("SHA-256 of known messages") {
  const auto hex = [](std::string_view message) {
    Sha256 digest;
    digest.add(message.substr(0, message.size() / 2));
    digest.add(message.substr(message.size() / 2));
    return digest.hex();
  };
  EXPECT_EQ(hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST("written forms are refused, words and Chinese texts pass") {
  const auto refused = [](const std::u32string& text) {
    return !testing::thrown([&] { refuse_written_forms(text); }).empty();
  };
  EXPECT(refused(U"It costs 5 euros."));
  EXPECT(refused(U"Salt & pepper."));
  EXPECT(refused(U"Ask Dr. Who."));
  EXPECT(!refused(U"[SPEAKER0] Ask the doctor. Tom. Andrews."));
  EXPECT(!refused(U"\u6211\u67095\u4e2a"));
  EXPECT(refused(U"\u304b5"));
}

}  // namespace
}  // namespace higgs_rt
