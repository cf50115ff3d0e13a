// The whole way: checkpoint and codec in, waveform out.
#include <atomic>
#include <cmath>
#include <future>
#include <thread>

#include "api/support.h"
#include "check.h"

namespace higgs_rt::testing {
namespace {

// Whole decoding in one call, frames [n][books] -> codes [books, n].
std::vector<float> decoded(Runtime& runtime, const Answer& answer) {
  const auto count = static_cast<std::int32_t>(answer.frames.size());
  std::vector<std::int32_t> codes;
  for (std::size_t k = 0; k < answer.frames.front().size(); ++k) {
    for (const auto& frame : answer.frames) codes.push_back(frame[k]);
  }
  return runtime.decode_frames(codes, count);
}

TEST("a streamed answer equals the whole one, bit for bit") {
  const auto runtime = Runtime::load(small_config(endless_model()));
  for (const std::int32_t columns : {1, 9, 10, 11, 28, 29, 64, 170}) {
    const Answer whole = read(runtime->submit(speech_request(columns, 5, false)));
    const Answer streamed = read(runtime->submit(speech_request(columns, 5, true)));
    EXPECT(whole.finish == FinishReason::kLength);
    EXPECT_EQ(whole.chunk_frames.size(), 1u);
    // Column j + 8 completes frame j, and column 0 is the BOS column.
    EXPECT_EQ(std::ssize(whole.frames), columns > 8 ? columns - 8 : 0);
    EXPECT_EQ(whole.pcm.size(), whole.frames.size() * 960);
    EXPECT_EQ(std::ssize(whole.columns), columns * 8);
    EXPECT(whole.pcm == streamed.pcm);
    EXPECT(whole.frames == streamed.frames);
    EXPECT(whole.columns == streamed.columns);
    if (!whole.frames.empty()) EXPECT(whole.pcm == decoded(*runtime, whole));
  }
}

TEST("chunks begin small, double, and stop at the limit") {
  const auto runtime = Runtime::load(small_config(endless_model()));
  Request request = speech_request(150, 1, true);
  request.first_chunk_frames = 3;
  request.max_chunk_frames = 20;
  const Answer answer = read(runtime->submit(request));
  REQUIRE(answer.chunk_frames.size() > 5);
  const std::vector<std::int32_t> first(answer.chunk_frames.begin(),
                                        answer.chunk_frames.begin() + 5);
  EXPECT((first == std::vector<std::int32_t>{3, 6, 12, 20, 20}));
  float loudest = 0;
  for (const float sample : answer.pcm) loudest = std::max(loudest, std::abs(sample));
  EXPECT(loudest > 0.01F && loudest <= 1.0F);
}

TEST("many streams at once give what each gives alone") {
  const auto runtime = Runtime::load(small_config(ending_model()));
  std::vector<Answer> alone;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    alone.push_back(read(runtime->submit(speech_request(120, seed, false))));
  }
  std::vector<Stream> streams;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    streams.push_back(runtime->submit(speech_request(120, seed, seed % 2 == 0)));
  }
  for (std::size_t i = 0; i < streams.size(); ++i) {
    const Answer answer = read(streams[i]);
    EXPECT(answer.columns == alone[i].columns);
    EXPECT(answer.pcm == alone[i].pcm);
    EXPECT(answer.finish == alone[i].finish);
    EXPECT(streams[i].done());
    const RequestTiming timing = streams[i].timing();
    EXPECT(timing.started >= 0 && timing.started <= timing.finished);
    EXPECT(timing.first_chunk >= timing.started && timing.first_chunk <= timing.finished);
  }
  const RuntimeStats stats = runtime->stats();
  EXPECT_EQ(stats.finished, 16);
  EXPECT_EQ(stats.free_blocks, stats.total_blocks);
}

TEST("frames need no codec, and a waveform without one is refused") {
  RuntimeConfig config = small_config(endless_model());
  const Answer with_codec = [&] {
    const auto runtime = Runtime::load(config);
    return read(runtime->submit(speech_request(60, 2, true)));
  }();
  config.codec_dir = "none";
  const auto runtime = Runtime::load(config);
  EXPECT(!runtime->info().has_codec);
  Request request = speech_request(60, 2, true);
  EXPECT_THROWS(runtime->submit(request), "[output] expected frames");
  EXPECT_THROWS(runtime->decode_frames({0}, 1), "codec_dir \"none\"");
  request.output = OutputKind::kFrames;
  const Answer frames = read(runtime->submit(request));
  EXPECT(frames.pcm.empty());
  EXPECT_EQ(frames.frames.size(), 52u);
  EXPECT(frames.frames == with_codec.frames);
}

TEST("callbacks get every chunk, also when they come late") {
  const auto runtime = Runtime::load(small_config(endless_model()));
  const Answer expected = read(runtime->submit(speech_request(100, 7, true)));
  for (const bool late : {false, true}) {
    Stream stream = runtime->submit(speech_request(100, 7, true));
    while (late && !stream.done()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    Answer answer;
    std::promise<void> ended;
    stream.on_chunk([&](const Chunk& chunk) {
      answer.add(chunk);
      if (chunk.last) ended.set_value();
    });
    ended.get_future().get();
    EXPECT(answer.pcm == expected.pcm);
    EXPECT(answer.chunk_frames == expected.chunk_frames);
    Chunk chunk;
    EXPECT_THROWS(stream.next(chunk), "expected next() or on_chunk()");
    EXPECT_THROWS(stream.on_chunk([](const Chunk&) {}), "expected one callback");
  }
}

TEST("a listener hears of every chunk, and at once of one that waits") {
  const auto runtime = Runtime::load(small_config(endless_model()));
  Stream stream = runtime->submit(speech_request(60, 1, true));
  const auto heard = std::make_shared<std::atomic<int>>(0);
  stream.on_ready([heard] { ++*heard; });
  EXPECT_THROWS(stream.on_ready([] {}), "expected one listener per stream, got a second one");
  int chunks = 0;
  for (Chunk chunk; stream.next(chunk);) ++chunks;
  EXPECT(chunks > 2);
  while (*heard < chunks) std::this_thread::yield();  // it may hear a little later than we read
  Stream late = runtime->submit(speech_request(20, 1, false));
  while (!late.done()) std::this_thread::yield();
  int at_once = 0;
  late.on_ready([&] { ++at_once; });
  EXPECT_EQ(at_once, 1);
}

TEST("a slow reader pauses its own request and no other") {
  RuntimeConfig config = small_config(endless_model());
  config.max_buffered_chunks = 2;
  const auto runtime = Runtime::load(config);
  const Answer expected = read(runtime->submit(speech_request(400, 3, false)));
  Request request = speech_request(400, 3, true);
  request.first_chunk_frames = 2;
  request.max_chunk_frames = 4;
  Stream slow = runtime->submit(request);
  // Others run to their ends while nobody reads the slow one.
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    EXPECT(read(runtime->submit(speech_request(400, seed, false))).frames.size() == 392);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT(!slow.done());
  const std::int64_t columns = runtime->stats().columns;
  EXPECT(columns < 4 * 400 + 60);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const RuntimeStats later = runtime->stats();
  EXPECT_EQ(later.columns, columns);
  const Answer answer = read(slow);
  EXPECT(answer.pcm == expected.pcm);
  EXPECT(answer.finish == FinishReason::kLength);
}

TEST("cancelling ends a stream and frees its blocks") {
  const auto runtime = Runtime::load(small_config(endless_model()));
  Stream stream = runtime->submit(speech_request(500, 1, true));
  Chunk chunk;
  REQUIRE(stream.next(chunk));
  stream.cancel();
  stream.cancel();
  Answer rest = read(stream);
  EXPECT(rest.finish == FinishReason::kCancelled);
  EXPECT(stream.next_for(chunk, std::chrono::milliseconds(0)) == Stream::Poll::kEnd);
  // Dropping the last copy cancels too.
  {
    const Stream dropped = runtime->submit(speech_request(500, 2, true));
  }
  RuntimeStats stats;
  while ((stats = runtime->stats()).cancelled < 2) std::this_thread::yield();
  EXPECT_EQ(stats.free_blocks, stats.total_blocks);
}

TEST("a timeout is no end") {
  const auto runtime = Runtime::load(small_config(endless_model()));
  Stream stream = runtime->submit(speech_request(400, 1, false));
  Chunk chunk;
  EXPECT(stream.next_for(chunk, std::chrono::milliseconds(0)) == Stream::Poll::kTimeout);
  // Longer than any clock counts.
  EXPECT(stream.next_for(chunk, std::chrono::milliseconds::max()) == Stream::Poll::kChunk);
  EXPECT(chunk.last && chunk.num_frames == 392);
}

TEST("shutting down ends live streams, which outlive the runtime") {
  for (int round = 0; round < 20; ++round) {
    auto runtime = Runtime::load(small_config(endless_model()));
    std::vector<Stream> streams;
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      streams.push_back(runtime->submit(speech_request(500, seed, seed % 2 == 0)));
    }
    Answer called;
    streams[0].on_chunk([&](const Chunk& chunk) { called.add(chunk); });
    std::this_thread::sleep_for(std::chrono::microseconds(300 * round));
    std::thread reader([&] {
      const FinishReason finish = read(streams[1]).finish;
      EXPECT(finish == FinishReason::kCancelled || finish == FinishReason::kLength);
    });
    if (round % 2 == 0) runtime->shutdown();
    if (round % 4 == 0) EXPECT_THROWS(runtime->submit(speech_request(9, 0, true)), "shutting down");
    runtime.reset();
    reader.join();
    EXPECT(called.finish == FinishReason::kCancelled || called.finish == FinishReason::kLength);
    for (std::size_t i = 2; i < streams.size(); ++i) {
      EXPECT(streams[i].done());
      streams[i].cancel();
      EXPECT(read(streams[i]).finish != FinishReason::kNone);
    }
  }
}

TEST("threads that submit, read, cancel, drop and call back do not disturb each other") {
  auto runtime = Runtime::load(small_config(ending_model()));
  std::vector<std::vector<float>> expected;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    expected.push_back(read(runtime->submit(speech_request(90, seed, false))).pcm);
  }
  std::atomic<int> callbacks = 0;
  const auto worker = [&](std::uint64_t thread) {
    for (std::uint64_t i = 0; i < 24; ++i) {
      const std::uint64_t seed = (thread + i) % 4;
      Stream stream = runtime->submit(speech_request(90, seed, i % 2 == 0));
      const std::uint64_t action = (3 * thread + i) % 5;
      if (action < 2) {
        EXPECT(read(stream).pcm == expected[seed]);
      } else if (action == 2) {
        stream.cancel();
        EXPECT(read(stream).finish != FinishReason::kNone);
      } else if (action == 3) {
        stream.on_chunk([&callbacks, stream](const Chunk& chunk) mutable {
          if (chunk.last) ++callbacks;
          if (chunk.num_frames % 3 == 0) stream.cancel();
        });
      }
    }
  };
  std::vector<std::thread> threads;
  for (std::uint64_t thread = 0; thread < 4; ++thread) threads.emplace_back(worker, thread);
  for (std::thread& thread : threads) thread.join();
  runtime->shutdown();
  EXPECT_EQ(callbacks.load(), 4 * 24 / 5);
  const RuntimeStats stats = runtime->stats();
  EXPECT_EQ(stats.submitted, stats.finished + stats.cancelled);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_EQ(stats.free_blocks, stats.total_blocks);
}

TEST("a callback may drop the runtime, but not shut it down") {
  RuntimeConfig config = small_config(endless_model());
  config.max_buffered_chunks = 1;  // unread, both pause long before their ends
  std::shared_ptr<Runtime> runtime = Runtime::load(config);
  Stream stream = runtime->submit(speech_request(400, 1, true));
  Stream other = runtime->submit(speech_request(500, 2, true));
  while (runtime->stats().running != 2) std::this_thread::yield();
  std::string refusal;
  std::int32_t running = 0;
  std::promise<void> dropped;
  stream.on_chunk([&refusal, &running, &dropped, held = std::move(runtime)](const Chunk&) mutable {
    if (held == nullptr) return;
    refusal = thrown([&] { held->shutdown(); });
    running = held->stats().running;  // the refusal has changed nothing
    held.reset();
    dropped.set_value();
  });
  dropped.get_future().get();
  EXPECT(refusal.find("outside of on_chunk") != std::string::npos);
  EXPECT_EQ(running, 2);
  while (!stream.done() || !other.done()) std::this_thread::yield();
  EXPECT(read(other).finish == FinishReason::kCancelled);
}

TEST("a full queue refuses, and serves those that were accepted") {
  RuntimeConfig config = small_config(endless_model());
  config.max_batch = 1;
  config.max_queue = 2;
  const auto runtime = Runtime::load(config);
  std::vector<Stream> accepted;
  std::string refusal;
  for (std::uint64_t seed = 0; seed < 20 && refusal.empty(); ++seed) {
    try {
      accepted.push_back(runtime->submit(speech_request(300, seed, false)));
    } catch (const Error& error) {
      EXPECT(error.code() == ErrorCode::kResourceExhausted);
      refusal = error.what();
    }
  }
  EXPECT(refusal.find("max_queue") != std::string::npos);
  for (const Stream& stream : accepted) EXPECT(read(stream).frames.size() == 292);
}

TEST("a bad request is refused by name and harms no other") {
  const auto runtime = Runtime::load(small_config(endless_model()));
  const Stream good = runtime->submit(speech_request(200, 1, true));
  const auto refuse = [&](auto change, const char* part) {
    Request request = speech_request(50, 1, true);
    change(request);
    EXPECT_THROWS(runtime->submit(request), part);
  };
  refuse([](Request& r) { r.first_chunk_frames = 0; }, "[first_chunk_frames] expected 1..");
  refuse([](Request& r) { r.max_chunk_frames = 5000; }, "[max_chunk_frames] expected 8..");
  refuse([](Request& r) { r.max_chunk_frames = 4; }, "[max_chunk_frames] expected 8..");
  refuse([](Request& r) { r.output = static_cast<OutputKind>(7); }, "[output] expected waveform");
  refuse([](Request& r) { r.max_columns = 0; }, "max_columns");
  refuse([](Request& r) { r.max_columns = 511; }, "max_sequence");
  refuse([](Request& r) { r.prompt.clear(); }, "prompt");
  refuse([](Request& r) { r.prompt[0].ids[1] = 320; }, "prompt[0].ids[1]");
  refuse([](Request& r) { r.sampling.temperature = -1; }, "temperature");
  refuse([](Request& r) { r.sampling.top_p = 0; }, "top_p");
  refuse(
      [](Request& r) {
        const PromptSegment transposed{
            PromptSegment::Kind::kAudio, std::vector<std::int32_t>(40), {}, 5};
        r.prompt.insert(r.prompt.begin(), transposed);
      },
      "codes [num_codebooks 8");
  EXPECT(read(good).frames.size() == 192);
}

TEST("a configuration is checked before anything is loaded") {
  const auto refuse = [](auto change, const char* part) {
    RuntimeConfig config = small_config(endless_model());
    change(config);
    EXPECT_THROWS(Runtime::load(config), part);
  };
  refuse([](RuntimeConfig& c) { c.model_dir = ""; }, "[model_dir]");
  refuse([](RuntimeConfig& c) { c.model_dir = "/nowhere"; }, "/nowhere");
  refuse([](RuntimeConfig& c) { c.codec_dir = "/nowhere"; }, "/nowhere");
  refuse([](RuntimeConfig& c) { c.backend = "magic"; }, "[backend] expected native or tensorrt");
  refuse([](RuntimeConfig& c) { c.device = "tpu"; }, "tpu");
  refuse([](RuntimeConfig& c) { c.max_batch = 0; }, "[max_batch] expected 1..");
  refuse([](RuntimeConfig& c) { c.max_step_tokens = 4; }, "[max_step_tokens] expected 5..");
  refuse([](RuntimeConfig& c) { c.num_threads = -1; }, "[num_threads]");
  refuse([](RuntimeConfig& c) { c.max_buffered_chunks = 0; }, "[max_buffered_chunks]");
  refuse([](RuntimeConfig& c) { c.max_held_steps = -2; }, "[max_held_steps]");
  refuse([](RuntimeConfig& c) { c.model_dir = HIGGS_RT_GOLDEN_DIR "/lm/transformers"; },
         "[codec_dir] expected a codec in");
  refuse([](RuntimeConfig& c) { c.codec_dir = HIGGS_RT_GOLDEN_DIR "/codec/transformers"; },
         "[codec] expected codebook_size 30");
}

}  // namespace
}  // namespace higgs_rt::testing
