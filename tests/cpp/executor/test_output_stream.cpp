#include "executor/output_stream.h"

#include <thread>

#include "check.h"
#include "executor/support.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

constexpr std::int32_t kCodebooks = 4;

// codes [kCodebooks, frames] with code (7 k + j) mod 16
std::vector<std::int32_t> make_codes(std::int32_t frames) {
  std::vector<std::int32_t> codes;
  for (std::int32_t k = 0; k < kCodebooks; ++k) {
    for (std::int32_t j = 0; j < frames; ++j) codes.push_back((7 * k + j) % 16);
  }
  return codes;
}

FrameStreamConfig stream_config(std::int32_t max_buffered = 0, std::function<void()> wake = {}) {
  return {.num_codebooks = kCodebooks,
          .codebook_size = 16,
          .max_buffered_frames = max_buffered,
          .listener = {},
          .wake = std::move(wake)};
}

// Feeds what the first-EOS rule gives for `frames` frames; the all-EOS column is not generated.
std::vector<std::int32_t> feed(ColumnSink& sink, std::int32_t frames) {
  auto columns = apply_delay(make_codes(frames), kCodebooks, 16);
  columns.resize(columns.size() - kCodebooks);
  const auto count = static_cast<std::int32_t>(columns.size()) / kCodebooks;
  for (std::int32_t c = 0; c < count; ++c) {
    sink.on_column(std::span(columns).subspan(c * kCodebooks, kCodebooks), c == count - 1);
  }
  return columns;
}

}  // namespace

TEST("frame stream: taken pieces make up the frames, columns and times are kept") {
  int calls = 0;
  FrameStreamConfig config = stream_config();
  config.listener = [&] { ++calls; };
  FrameStream stream(std::move(config));
  EXPECT_EQ(stream.timing().started, -1.0);
  stream.on_started();
  const auto columns = feed(stream, 9);
  EXPECT_EQ(stream.available(), 8);  // the ninth would be complete with the all-EOS column
  EXPECT_EQ(calls, 8);
  EXPECT(!stream.finished() && !stream.take(0).finished);
  stream.on_finish(FinishReason::kStop, "");
  EXPECT_EQ(calls, 9);
  EXPECT(stream.finished());
  EXPECT(stream.columns() == columns);
  const auto codes = make_codes(9);
  std::int32_t next = 0;
  for (const std::int32_t count : {3, 1, 100}) {
    const FrameStream::Taken taken = stream.take(count);
    const std::int32_t expected = std::min(count, 8 - next);
    EXPECT_EQ(taken.num_frames, expected);
    for (std::int32_t k = 0; k < kCodebooks; ++k) {
      for (std::int32_t j = 0; j < taken.num_frames; ++j) {
        EXPECT_EQ(taken.frames[k * taken.num_frames + j], codes[k * 9 + next + j]);
      }
    }
    next += taken.num_frames;
    EXPECT_EQ(taken.finished, next == 8);
    EXPECT_EQ(static_cast<int>(taken.finish), next == 8 ? 1 : 0);
  }
  const RequestTiming timing = stream.timing();
  EXPECT(0 <= timing.started && timing.started <= timing.first_column &&
         timing.first_column <= timing.finished && timing.first_chunk == -1);
}

TEST("frame stream: pauses when full and wakes when drained") {
  int wakes = 0;
  FrameStream stream(stream_config(5, [&] { ++wakes; }));
  EXPECT(!stream.paused());
  feed(stream, 7);
  EXPECT(stream.paused());
  EXPECT_EQ(stream.take(1).num_frames, 1);
  EXPECT(stream.paused());
  EXPECT_EQ(wakes, 0);
  EXPECT_EQ(stream.take(1).num_frames, 1);
  EXPECT(!stream.paused());
  EXPECT_EQ(wakes, 1);
  EXPECT_EQ(stream.take(100).num_frames, 4);
  EXPECT_EQ(wakes, 1);
  EXPECT_THROWS(FrameStream(stream_config(5)), "wake: expected a function");
  EXPECT_THROWS(FrameStream(stream_config(-1)), "max_buffered_frames: expected at least 0, got -1");
}

TEST("frame stream: frames before an error can be taken, then the error comes") {
  FrameStream stream(stream_config());
  feed(stream, 4);
  stream.on_finish(FinishReason::kError, "[engine] broken");
  EXPECT(stream.wait_for(100, std::chrono::milliseconds(0)));
  EXPECT(!stream.take(2).finished);
  const FrameStream::Taken rest = stream.take(2);
  EXPECT(rest.finished && rest.finish == FinishReason::kError);
  EXPECT_EQ(rest.error, "[engine] broken");
}

TEST("frame stream: slow readers get the frames of their request through back-pressure") {
  const EngineSpec spec = small_spec({.block_tokens = 4, .num_blocks = 60});
  Rig rig(spec, {.max_batch = 3, .max_queue = 64, .max_step_tokens = 12, .max_sequence = 200});
  std::vector<std::thread> readers;
  std::atomic<int> wrong{0};
  for (unsigned r = 0; r < 6; ++r) {
    readers.emplace_back([&, r] {
      Random random(r);
      const Request request = random_request(random, spec, 60);
      const auto stream =
          std::make_shared<FrameStream>(stream_config(3, [&] { rig.executor.wake(); }));
      rig.executor.submit(request, stream);
      std::vector<std::int32_t> frames;  // [frames, codebooks]
      for (bool finished = false; !finished;) {
        if (!stream->wait_for(draw(random, 1, 3), std::chrono::seconds(60))) ++wrong;
        const FrameStream::Taken taken = stream->take(draw(random, 1, 3));
        for (std::int32_t j = 0; j < taken.num_frames; ++j) {
          for (std::int32_t k = 0; k < kCodebooks; ++k) {
            frames.push_back(taken.frames[k * taken.num_frames + j]);
          }
        }
        finished = taken.finished;
        std::this_thread::sleep_for(std::chrono::microseconds(draw(random, 0, 200)));
      }
      const Answer expected = reference_answer(request, spec);
      const RevertedFrames reverted =
          revert_delay(expected.columns, kCodebooks, 16, expected.reason == FinishReason::kStop);
      std::vector<std::int32_t> expected_frames;
      for (std::int32_t j = 0; j < reverted.num_frames; ++j) {
        for (std::int32_t k = 0; k < kCodebooks; ++k) {
          expected_frames.push_back(reverted.codes[k * reverted.num_frames + j]);
        }
      }
      if (frames != expected_frames || stream->columns() != expected.columns) ++wrong;
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong.load(), 0);
  rig.check_clean();
}
