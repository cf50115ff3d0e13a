#include <cmath>

#include "api/support.h"
#include "io/temporary_directory.h"

namespace higgs_rt::testing {
namespace {

std::unique_ptr<TemporaryDirectory> make_model(bool endless) {
  auto directory = std::make_unique<TemporaryDirectory>();
  RandomLmShape shape;
  shape.endless = endless;
  write_random_lm(directory->path(), shape, DType::kF32, 11);
  write_random_codec(directory->path() + "/codec", {}, 12);
  return directory;
}

}  // namespace

const std::string& endless_model() {
  static const auto directory = make_model(true);
  return directory->path();
}

const std::string& ending_model() {
  static const auto directory = make_model(false);
  return directory->path();
}

RuntimeConfig small_config(const std::string& model_dir) {
  RuntimeConfig config;
  config.model_dir = model_dir;
  config.num_threads = 2;
  config.max_batch = 4;
  config.max_queue = 16;
  config.max_step_tokens = 32;
  config.max_sequence = 512;
  return config;
}

Request speech_request(std::int32_t max_columns, std::uint64_t seed, bool stream) {
  Request request;
  request.prompt.push_back(
      {.kind = PromptSegment::Kind::kText, .ids = {1, 2, 3, 250, 301}, .rows = {}});
  // Neither the five likeliest ids nor a greedy choice reach a zeroed row; RAS would.
  request.sampling = {
      .temperature = 1.0F, .top_k = 5, .top_p = 1.0F, .ras_window = 0, .seed = seed};
  request.max_columns = max_columns;
  request.stream = stream;
  return request;
}

void Answer::add(const Chunk& chunk) {
  pcm.insert(pcm.end(), chunk.pcm.begin(), chunk.pcm.end());
  for (std::int32_t t = 0; t < chunk.num_frames; ++t) {
    auto& frame = frames.emplace_back();
    for (std::int32_t k = 0; k < chunk.num_codebooks; ++k) {
      frame.push_back(chunk.frames[static_cast<std::size_t>(k * chunk.num_frames + t)]);
    }
  }
  chunk_frames.push_back(chunk.num_frames);
  if (!chunk.last) return;
  columns = chunk.columns;
  finish = chunk.finish;
  error = chunk.error;
}

Answer read(Stream stream) {
  Answer answer;
  Chunk chunk;
  while (stream.next(chunk)) answer.add(chunk);
  return answer;
}

}  // namespace higgs_rt::testing
