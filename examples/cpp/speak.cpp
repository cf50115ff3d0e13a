// Speaks with a model directory and text token ids, streaming, and writes 16-bit PCM:
//   speak MODEL_DIR OUT.pcm ID ID ID ...
// The ids are a whole prompt that ends with <|audio_out_bos|>; build_prompt of the Python package
// higgs_rt.prompt makes them, or any tokenizer. Play with: ffplay -f s16le -ar 24000 OUT.pcm
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "higgs_rt/runtime.h"

namespace {

void write_pcm(std::ofstream& file, const std::vector<float>& samples) {
  for (const float sample : samples) {
    const auto value = static_cast<std::int16_t>(std::lround(sample * 32767.0F));
    file.put(static_cast<char>(value & 0xff));
    file.put(static_cast<char>((value >> 8) & 0xff));
  }
}

int speak(const std::string& model_dir, const std::string& path, std::vector<std::int32_t> ids) {
  std::ofstream file(path, std::ios::binary);
  if (!file) {
    std::cerr << path << ": cannot be written\n";
    return 1;
  }
  higgs_rt::RuntimeConfig config;
  config.model_dir = model_dir;
  const auto runtime = higgs_rt::Runtime::load(config);

  higgs_rt::Request request;
  request.prompt.emplace_back().ids = std::move(ids);
  request.max_columns = 500;
  request.stream = true;
  higgs_rt::Stream stream = runtime->submit(request);

  higgs_rt::Chunk chunk;
  std::size_t samples = 0;
  while (stream.next(chunk)) {
    write_pcm(file, chunk.pcm);
    samples += chunk.pcm.size();
  }
  const double seconds = static_cast<double>(samples) / runtime->info().sample_rate;
  std::cout << seconds << " s of speech, first chunk after " << stream.timing().first_chunk
            << " s, all after " << stream.timing().finished << " s\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: speak MODEL_DIR OUT.pcm ID ID ID ...\n";
    return 2;
  }
  std::vector<std::int32_t> ids;
  for (int i = 3; i < argc; ++i) ids.push_back(std::atoi(argv[i]));
  try {
    return speak(argv[1], argv[2], ids);
  } catch (const higgs_rt::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
