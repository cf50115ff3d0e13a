// Runtime and Stream: the C++ API over a session.
#include "higgs_rt/runtime.h"

#include <optional>
#include <thread>
#include <utility>

#include "api/config_check.h"
#include "api/session.h"
#include "core/check.h"

namespace higgs_rt {

// --- Stream -----------------------------------------------------------------------------------

namespace {

StreamState& require(const std::shared_ptr<StreamState>& state) {
  check(state != nullptr, "stream", "expected a stream of Runtime::submit, got an empty one");
  return *state;
}

}  // namespace

Stream::Stream(std::shared_ptr<StreamState> state) : state_(std::move(state)) {}

bool Stream::next(Chunk& chunk) {
  return require(state_).stream().next(chunk, std::nullopt) == Poll::kChunk;
}

Stream::Poll Stream::next_for(Chunk& chunk, std::chrono::milliseconds timeout) {
  return require(state_).stream().next(chunk, timeout);
}

void Stream::on_chunk(std::function<void(const Chunk&)> callback) {
  require(state_).on_chunk(std::move(callback));
}

void Stream::on_ready(std::function<void()> listener) {
  require(state_).stream().set_listener(std::move(listener));
}

void Stream::cancel() { require(state_).cancel(); }
bool Stream::done() const { return require(state_).done(); }
RequestTiming Stream::timing() const { return require(state_).stream().timing(); }
std::uint64_t Stream::id() const { return require(state_).id(); }

// --- Runtime ----------------------------------------------------------------------------------

struct Runtime::Impl {
  std::shared_ptr<Session> session;
};

Runtime::Runtime(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Runtime::~Runtime() {
  const std::shared_ptr<Session>& session = impl_->session;
  if (!session->process.is_current()) {
    static_cast<void>(impl_.release());  // NOLINT(bugprone-unused-return-value)
  } else if (session->stage.is_current_thread()) {
    // A callback dropped the runtime, and its thread cannot wait for its own end.
    std::thread([session] { session->shutdown(); }).detach();
  } else {
    session->shutdown();
  }
}

std::unique_ptr<Runtime> Runtime::load(const RuntimeConfig& config) {
  auto impl = std::make_unique<Impl>(Impl{std::make_shared<Session>(config)});
  return std::make_unique<Runtime>(std::move(impl));
}

Stream Runtime::submit(const Request& request) {
  Session& session = *impl_->session;
  session.process.check_current();
  validate_output(request, info());
  validate_axes(request.prompt, info());
  auto stream = std::make_shared<SpeechStream>(
      SpeechStreamConfig{.output = request.output,
                         .stream = request.stream,
                         .first_chunk_frames = request.first_chunk_frames,
                         .max_chunk_frames = request.max_chunk_frames,
                         .max_buffered_chunks = session.config.max_buffered_chunks,
                         .num_codebooks = info().num_codebooks,
                         .codebook_size = info().codebook_vocab - 2,
                         .wake_executor = [&session] { session.executor.wake(); },
                         .wake_stage = [&session] { session.stage.notify(); },
                         .note_news = [&session] { session.has_news = true; }},
      session.codec.get());
  const std::uint64_t id = session.executor.submit(request, stream->source());
  session.stage.add(stream);
  return Stream(std::make_shared<StreamState>(std::move(stream), impl_->session, id));
}

std::vector<float> Runtime::decode_frames(const std::vector<std::int32_t>& codes,
                                          std::int32_t num_frames) {
  impl_->session->process.check_current();
  Codec* codec = impl_->session->codec.get();
  if (codec == nullptr) {
    fail(ErrorCode::kUnsupported, "decode_frames",
         "expected a runtime with a codec, got codec_dir \"none\"");
  }
  const CodecSpec& spec = codec->spec();
  const auto books = static_cast<std::size_t>(spec.num_codebooks);
  check(num_frames > 0, "decode_frames", "expected at least 1 frame, got ", num_frames);
  const auto count = static_cast<std::size_t>(num_frames);
  check(codes.size() == books * count, "decode_frames", "expected codes [", books, ", ", count,
        "], got ", codes.size(), " codes");
  std::vector<std::int32_t> frames(codes.size());
  for (std::size_t k = 0; k < books; ++k) {
    for (std::size_t t = 0; t < count; ++t) {
      const std::int32_t code = codes[k * count + t];
      check(code >= 0 && code < spec.codebook_size, "decode_frames", "codes[", k, ", ", t,
            "]: expected 0..", spec.codebook_size - 1, ", got ", code);
      frames[t * books + k] = code;
    }
  }
  std::vector<float> pcm(count * static_cast<std::size_t>(spec.samples_per_frame));
  if (impl_->session->stage.is_current_thread()) impl_->session->stage.leave_codec();
  codec->decode(frames, 0, num_frames, pcm);
  return pcm;
}

const ModelInfo& Runtime::info() const { return impl_->session->backend.info; }

RuntimeStats Runtime::stats() const {
  impl_->session->process.check_current();
  return impl_->session->executor.stats();
}

void Runtime::shutdown() {
  if (impl_->session->process.is_current()) impl_->session->shutdown();
}

}  // namespace higgs_rt
