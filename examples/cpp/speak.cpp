// Speaks a text and writes a WAV file while the speech is made:
//   speak MODEL_DIR OUT.wav TEXT [VOICE [SEED]]
// MODEL_DIR has the model's files, tokenizer.json among them, and its codec in codec/. Numbers are
// to be written in words. VOICE is a stored voice (docs/voices.md); "" is the model's own choice.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "higgs_rt/speaker.h"

namespace {

// Mono, 16 bits; the sizes in the header are filled in at the end.
class WavFile {
 public:
  WavFile(const std::string& path, std::uint32_t rate) : file_(path, std::ios::binary) {
    file_ << "RIFF";
    write(0, 4);
    file_ << "WAVEfmt ";
    write(16, 4);
    write(1, 2);  // PCM
    write(1, 2);  // channels
    write(rate, 4);
    write(2 * rate, 4);
    write(2, 2);
    write(16, 2);
    file_ << "data";
    write(0, 4);
  }

  void add(const std::vector<float>& samples) {
    for (const float sample : samples) {
      const long value = std::lrint(std::clamp(sample, -1.0F, 1.0F) * 32767.0F);
      write(static_cast<std::uint32_t>(value), 2);
    }
    bytes_ += static_cast<std::uint32_t>(2 * samples.size());
  }

  bool close() {
    file_.seekp(4);
    write(36 + bytes_, 4);
    file_.seekp(40);
    write(bytes_, 4);
    file_.close();
    return !file_.fail();
  }

 private:
  void write(std::uint32_t value, int count) {
    for (int i = 0; i < count; ++i) file_.put(static_cast<char>((value >> (8 * i)) & 0xff));
  }

  std::ofstream file_;
  std::uint32_t bytes_ = 0;
};

int speak(const std::string& model_dir, const std::string& path, const std::string& text,
          const higgs_rt::SpeakOptions& options) {
  const auto speaker = higgs_rt::Speaker::load({.model_dir = model_dir});
  const std::int32_t rate = speaker->runtime().info().sample_rate;
  WavFile file(path, static_cast<std::uint32_t>(rate));

  higgs_rt::Stream stream = speaker->stream(text, options);
  higgs_rt::Chunk chunk;
  std::size_t samples = 0;
  while (stream.next(chunk)) {
    file.add(chunk.pcm);
    samples += chunk.pcm.size();
  }
  if (!file.close()) {
    std::cerr << path << ": cannot be written\n";
    return 1;
  }
  std::cout << static_cast<double>(samples) / rate << " s of speech, first chunk after "
            << stream.timing().first_chunk << " s, all after " << stream.timing().finished
            << " s\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || argc > 6) {
    std::cerr << "usage: speak MODEL_DIR OUT.wav TEXT [VOICE [SEED]]\n";
    return 2;
  }
  higgs_rt::SpeakOptions options;
  if (argc > 4) options.voice = argv[4];
  if (argc > 5) options.seed = std::strtoull(argv[5], nullptr, 10);
  try {
    return speak(argv[1], argv[2], argv[3], options);
  } catch (const higgs_rt::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
