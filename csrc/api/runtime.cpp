// Composition root: ties device, threads, engine, sampler, executor, codec and waveform stage.
#include "higgs_rt/runtime.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <thread>
#include <utility>

#include "api/backend.h"
#include "api/codec.h"
#include "api/config_check.h"
#include "api/speech_stream.h"
#include "api/waveform_stage.h"
#include "core/check.h"
#include "executor/executor.h"
#include "sampler/sampler.h"

namespace higgs_rt {
namespace {

std::string codec_directory(const RuntimeConfig& config) {
  if (config.codec_dir == "none") return "";
  if (!config.codec_dir.empty()) return config.codec_dir;
  const auto directory = std::filesystem::path(config.model_dir) / "codec";
  if (!std::filesystem::is_directory(directory)) {
    fail(ErrorCode::kNotFound, "codec_dir", "expected a codec in ", directory.string(),
         ", another codec_dir, or \"none\", got no such directory");
  }
  return directory.string();
}

void check_codec(const CodecSpec& codec, const ModelInfo& model) {
  check(codec.num_codebooks == model.num_codebooks, "codec", "expected num_codebooks ",
        model.num_codebooks, " (of the language model), got ", codec.num_codebooks);
  check(codec.codebook_size + 2 == model.codebook_vocab, "codec", "expected codebook_size ",
        model.codebook_vocab - 2, " (of the language model, without BOS and EOS), got ",
        codec.codebook_size);
}

std::unique_ptr<Codec> load_codec(const RuntimeConfig& config, Backend& backend) {
  const std::string directory = codec_directory(config);
  if (directory.empty()) return nullptr;
  // A device object of its own: on CUDA a stream beside the language model's, which goes first.
  std::unique_ptr<Device> device = make_device(config.device, Priority::kLow);
  std::unique_ptr<Ops> ops = make_ops(*device, *backend.pool);
  const Device& codec_device = *device;
  auto codec = std::make_unique<Codec>(directory, std::move(device), std::move(ops));
  backend.info.codec_bytes = static_cast<std::int64_t>(codec_device.allocated_bytes());
  check_codec(codec->spec(), backend.info);
  backend.info.has_codec = true;
  backend.info.sample_rate = codec->spec().sample_rate;
  backend.info.samples_per_frame = codec->spec().samples_per_frame;
  return codec;
}

ExecutorConfig executor_config(const RuntimeConfig& config) {
  return {.max_batch = config.max_batch,
          .max_queue = config.max_queue,
          .max_step_tokens = config.max_step_tokens,
          .max_held_steps = config.max_held_steps,
          .max_sequence = config.max_sequence,
          .prefix_cache = config.prefix_cache};
}

SamplerSpec sampler_spec(const RuntimeConfig& config, const EngineSpec& engine) {
  return {.max_rows = config.max_batch,
          .num_codebooks = engine.num_codebooks,
          .codebook_vocab = engine.codebook_vocab};
}

}  // namespace

// The process that loaded a runtime. A fork of it has no threads, and locks may be held there for
// ever: nothing can be asked or taken apart, so what the child drops is leaked.
class Process {
 public:
  bool is_current() const { return ::getpid() == id_; }
  void check_current() const {
    if (is_current()) return;
    fail(ErrorCode::kUnavailable, "runtime", "expected the process that loaded it, ", id_,
         ", got its fork ", ::getpid(), ": load after forking");
  }

 private:
  const ::pid_t id_ = ::getpid();
};

// Of a GPU, in bytes: free, and allocated through its Device.
struct Memory {
  std::int64_t free = 0, allocated = 0;
};

Memory memory_of(Device& device) {
  return {static_cast<std::int64_t>(device.memory().free_bytes),
          static_cast<std::int64_t>(device.allocated_bytes())};
}

// Everything that streams may still refer to when the Runtime is gone. Members are destroyed in
// reverse order: the executor's thread first, then the stage that its streams notify.
struct Session {
  explicit Session(const RuntimeConfig& the_config)
      : config(with_defaults(the_config)),
        backend(load_backend(config, config.max_batch)),
        before(memory_of(*backend.device)),
        codec(load_codec(config, backend)),
        sampler(make_sampler(sampler_spec(config, backend.engine->spec()), *backend.device)),
        stage(codec.get()),
        executor(*backend.engine, *sampler, executor_config(config), [this] { wake_stage(); }) {
    note_memory();
  }

  // By the step thread: the stage is woken once a step, not once for every column.
  void wake_stage() {
    if (std::exchange(has_news, false)) stage.notify();
  }

  // Codec and executor have made their graphs: what the GPU lacks and nobody allocated.
  void note_memory() {
    ModelInfo& info = backend.info;
    if (info.device_bytes == 0) return;
    const Memory now = memory_of(*backend.device);
    info.graph_bytes = std::max<std::int64_t>(
        0, before.free - now.free - (now.allocated - before.allocated) - info.codec_bytes);
    info.workspace_bytes = now.allocated - info.weight_bytes - info.kv_bytes;
  }

  // The executor first: a stream ends when its source has.
  void shutdown() {
    stage.check_caller();
    executor.shutdown();
    stage.shutdown();
  }

  const Process process;
  const RuntimeConfig config;
  Backend backend;
  const Memory before;           // the codec and the graphs
  std::unique_ptr<Codec> codec;  // null: none
  std::unique_ptr<Sampler> sampler;
  WaveformStage stage;
  bool has_news = false;  // streams have news for the stage; of the step thread
  Executor executor;
};

// What the copies of a Stream share.
class StreamState {
 public:
  StreamState(std::shared_ptr<SpeechStream> stream, std::weak_ptr<Session> session,
              std::uint64_t id)
      : stream_(std::move(stream)), session_(std::move(session)), id_(id) {}
  ~StreamState() {
    cancel();
    if (process_.is_current()) return;
    new std::shared_ptr(std::move(stream_));  // NOLINT(bugprone-unhandled-exception-at-new)
  }
  StreamState(const StreamState&) = delete;
  StreamState& operator=(const StreamState&) = delete;

  SpeechStream& stream() {
    process_.check_current();
    return *stream_;
  }
  std::uint64_t id() const { return id_; }
  bool done() const { return !process_.is_current() || stream_->done(); }

  void cancel() {
    if (done()) return;
    stream_->cancel();
    if (const auto session = session_.lock()) {
      session->executor.cancel(id_);
      session->stage.notify();
    }
  }

  void on_chunk(std::function<void(const Chunk&)> callback) {
    stream().set_callback(std::move(callback));
    // The stage may have done with the stream already; it comes back for its callback.
    if (const auto session = session_.lock()) return session->stage.add(stream_);
    stream_->abort();
  }

 private:
  const Process process_;
  std::shared_ptr<SpeechStream> stream_;
  const std::weak_ptr<Session> session_;
  const std::uint64_t id_;
};

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
