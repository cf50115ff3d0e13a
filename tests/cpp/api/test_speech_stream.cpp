// One stream between a hand-driven executor and its reader.
#include "api/speech_stream.h"
#include "check.h"

namespace higgs_rt::testing {
namespace {

constexpr std::int32_t kBooks = 2;
constexpr std::int32_t kCodes = 10;

SpeechStreamConfig config(bool stream) {
  SpeechStreamConfig config;
  config.output = OutputKind::kFrames;
  config.stream = stream;
  config.first_chunk_frames = 2;
  config.max_chunk_frames = 4;
  config.max_buffered_chunks = 100;
  config.num_codebooks = kBooks;
  config.codebook_size = kCodes;
  config.wake_executor = [] {};
  config.wake_stage = [] {};
  return config;
}

// Columns 0 .. count - 1 of an endless stream of code 1; frame j is complete with column j + 2.
void feed(SpeechStream& stream, std::int32_t count) {
  for (std::int32_t c = 0; c < count; ++c) {
    std::vector<std::int32_t> column(kBooks, 1);
    for (std::int32_t k = c; k < kBooks; ++k) column[static_cast<std::size_t>(k)] = kCodes;
    stream.source()->on_column(column, false);
  }
}

void run_stage(SpeechStream& stream) {
  while (stream.advance()) {
  }
}

using Poll = Stream::Poll;
constexpr std::chrono::milliseconds kNow{0};

TEST("a request's error reaches the reader after its chunks, once") {
  SpeechStream stream(config(true), nullptr);
  feed(stream, 2 + 5);
  run_stage(stream);
  stream.source()->on_finish(FinishReason::kError, "[engine] expected luck, got none");
  run_stage(stream);
  EXPECT(stream.done());
  Chunk chunk;
  EXPECT(stream.next(chunk, kNow) == Poll::kChunk);
  EXPECT_EQ(chunk.num_frames, 2);
  EXPECT_THROWS(stream.next(chunk, kNow), "expected luck");
  EXPECT(stream.next(chunk, kNow) == Poll::kEnd);
  EXPECT(stream.next(chunk, std::nullopt) == Poll::kEnd);
}

TEST("a callback gets the error as the last chunk") {
  SpeechStream stream(config(false), nullptr);
  std::vector<Chunk> chunks;
  stream.set_callback([&](const Chunk& chunk) { chunks.push_back(chunk); });
  stream.source()->on_finish(FinishReason::kError, "broken");
  run_stage(stream);
  REQUIRE(chunks.size() == 1);
  EXPECT(chunks[0].last && chunks[0].finish == FinishReason::kError);
  EXPECT_EQ(chunks[0].error, std::string("broken"));
}

TEST("a cancelled stream waits for its source and keeps what was made") {
  SpeechStream stream(config(true), nullptr);
  feed(stream, 2 + 3);
  run_stage(stream);
  stream.cancel();
  run_stage(stream);
  EXPECT(!stream.done());
  stream.source()->on_finish(FinishReason::kStop, "");
  run_stage(stream);
  Chunk chunk;
  EXPECT(stream.next(chunk, kNow) == Poll::kChunk);
  EXPECT_EQ(chunk.num_frames, 2);
  EXPECT(stream.next(chunk, kNow) == Poll::kChunk);
  EXPECT(chunk.last && chunk.finish == FinishReason::kCancelled);
  EXPECT_EQ(std::ssize(chunk.columns), 5 * kBooks);
}

TEST("a full queue stops the stage, pauses the source, and goes on") {
  SpeechStreamConfig limited = config(true);
  limited.max_buffered_chunks = 2;
  int wakes = 0;
  limited.wake_stage = [&] { ++wakes; };
  SpeechStream stream(limited, nullptr);
  feed(stream, 2 + 40);
  run_stage(stream);
  EXPECT(stream.source()->paused());
  EXPECT_EQ(stream.source()->available(), 40 - 2 - 4);
  Chunk chunk;
  const int before = wakes;
  EXPECT(stream.next(chunk, kNow) == Poll::kChunk);
  EXPECT_EQ(wakes, before + 1);
  stream.source()->on_finish(FinishReason::kLength, "");
  std::int32_t frames = chunk.num_frames;
  do {
    run_stage(stream);
    EXPECT(stream.next(chunk, kNow) == Poll::kChunk);
    frames += chunk.num_frames;
  } while (!chunk.last);
  EXPECT_EQ(frames, 40);
  EXPECT(stream.next(chunk, kNow) == Poll::kEnd);
}

TEST("aborting ends a stream that has not ended") {
  SpeechStream stream(config(true), nullptr);
  feed(stream, 4);
  stream.source()->on_finish(FinishReason::kStop, "");
  stream.abort();
  stream.abort();
  Chunk chunk;
  EXPECT(stream.next(chunk, kNow) == Poll::kChunk);
  EXPECT(chunk.finish == FinishReason::kCancelled);
  EXPECT(stream.next(chunk, kNow) == Poll::kEnd);
}

}  // namespace
}  // namespace higgs_rt::testing
