// Plain data of the public C++ API: what a request asks for and what comes back.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "higgs_rt/error.h"

namespace higgs_rt {

// How a stream of columns begins, winds down and ends.
enum class StreamRule : std::int32_t {
  kFirstEos = 0,      // the stateful rule of the original server (specification 6.1); default
  kTransformers = 1,  // the logits-mask rule of transformers (specification 6.3), for parity
};

// Sampling of one request. Every codebook row of logits is treated alone (specification 7).
struct SamplingParams {
  float temperature = 0.7f;         // >= 0; 0 means greedy (top_k and top_p are then unused)
  std::int32_t top_k = 0;           // 0 disables; otherwise 1..codebook vocabulary
  float top_p = 0.95f;              // in (0, 1]; 1 disables
  std::int32_t ras_window = 7;      // columns looked back on; 0 disables; at most kMaxRasWindow
  std::int32_t ras_max_repeat = 2;  // occurrences in the window that trigger one resampling
  std::uint64_t seed = 0;           // same seed, same request, same engine: same columns
  StreamRule rule = StreamRule::kFirstEos;
};
inline constexpr std::int32_t kMaxRasWindow = 64;

enum class FinishReason : std::int32_t {
  kNone = 0,       // still running
  kStop = 1,       // the model ended the stream
  kLength = 2,     // max_columns was reached
  kCancelled = 3,  // the caller cancelled
  kError = 4,      // see the error message
};

// One piece of a prompt, in order. Exactly one of the three vectors is used, chosen by `kind`.
struct PromptSegment {
  enum class Kind : std::int32_t {
    kText = 0,   // `ids`: text token ids, each in [0, text vocabulary)
    kAudio = 1,  // `ids`: codes [num_codebooks, num_frames] row-major, each in [0, codebook size);
                 // the runtime adds the BOS and EOS columns and the delay (specification 4.5)
    kTable = 2,  // `rows`: embeddings [n, hidden_size] fp32 that take the place of token embeddings
  };
  Kind kind = Kind::kText;
  std::vector<std::int32_t> ids;
  std::vector<float> rows;
  // What the caller takes for the model's axis: codebooks of kAudio, hidden size of kTable. Checked
  // unless 0, so that transposed input is an error.
  std::int32_t model_axis = 0;
};

// What a request wants to receive.
enum class OutputKind : std::int32_t {
  kWaveform = 0,  // PCM through the codec decoder
  kFrames = 1,    // aligned codes only; no codec needed
};

struct Request {
  // The prompt must end right before the first audio column, i.e. with the text id
  // <|audio_out_bos|>.
  std::vector<PromptSegment> prompt;
  SamplingParams sampling;
  // Upper limit of generated columns, BOS column included (25 a second, plus 8 for the delay).
  std::int32_t max_columns = 2048;
  OutputKind output = OutputKind::kWaveform;
  // True: chunks arrive while the request runs. False: one chunk at the end.
  bool stream = false;
  // Streaming only: frames in the first chunk, and the most frames in a later one (chunks double).
  std::int32_t first_chunk_frames = 8;
  std::int32_t max_chunk_frames = 64;
  std::string adapter = {};  // one of RuntimeConfig::adapters by its name; empty: none
};

// A piece of the answer. Concatenating all chunks of a request gives the whole answer.
struct Chunk {
  std::vector<float> pcm;            // mono fp32 in [-1, 1] at sample_rate; empty for kFrames
  std::vector<std::int32_t> frames;  // codes [num_codebooks, num_frames] row-major of this chunk
  std::int32_t num_frames = 0;
  std::int32_t num_codebooks = 0;
  bool last = false;  // no chunk follows; `finish` and `columns` are set
  FinishReason finish = FinishReason::kNone;
  std::string error;  // message when finish is kError
  // Last chunk only: all generated columns [num_columns, num_codebooks], BOS column first.
  std::vector<std::int32_t> columns;
};

// Timing of one request in seconds since its submission; negative: has not happened yet.
struct RequestTiming {
  double started = -1;       // first scheduled
  double first_column = -1;  // first sampled column
  double first_chunk = -1;   // first chunk ready for the caller
  double finished = -1;
};

// A LoRA adapter that requests choose by its name.
struct NamedAdapter {
  std::string name;       // 1..64 letters, digits and . _ -; the first is a letter or digit
  std::string directory;  // peft's format: adapter_config.json and adapter_model.safetensors
};

struct RuntimeConfig {
  std::string model_dir;  // LM checkpoint directory (config.json and *.safetensors)
  std::string codec_dir;  // codec directory; empty: <model_dir>/codec; "none": no codec
  std::string device = "cpu";
  std::string backend = "native";         // or "tensorrt"
  std::string plan_dir = "";              // of the tensorrt backend; empty: <model_dir>/tensorrt
  std::int32_t num_threads = 0;           // CPU compute threads; 0: all cores this process may use
  std::int32_t max_batch = 32;            // requests that run at the same time
  std::int32_t max_queue = 256;           // requests that may wait; one more is refused
  std::int32_t max_step_tokens = 0;       // rows of one step, prompt chunks included; 0: 256 on the
                                          // CPU, 4224 on a GPU, or more for a larger max_batch
  std::int32_t max_sequence = 4096;       // prompt + generated positions of one request
  std::int32_t block_tokens = 16;         // positions of a KV block; with tensorrt a block is a
                                          // whole sequence, as the plan says
  std::int32_t num_blocks = 0;            // KV blocks; 0: enough for max_batch sequences of
                                          // 1024 positions (CPU) or of max_sequence, as far as
                                          // the memory goes (GPU); at least one of max_sequence
  double gpu_memory_fraction = 0.9;       // of the GPU's memory; the rest is left free
  std::int32_t max_buffered_chunks = 64;  // per stream; a slower reader pauses its own request
  std::int32_t max_held_steps = -1;       // steps that new requests may wait for others, so that
                                          // their prompts interrupt the running ones together; -1:
                                          // 0 on the CPU, 8 on a GPU
  double prefix_cache = 0.25;             // share of the KV blocks, 0..1, that may keep beginnings
                                          // of prompts for requests that begin alike; they count
                                          // as free. 0: off. Without effect on tensorrt
  std::string adapter_dir = "";           // LoRA adapter in peft's format, merged into the weights
                                          // while they load; empty: none. Native backend only
  std::vector<NamedAdapter> adapters = {};  // kept apart from the weights, for Request::adapter.
                                            // Native backend only
};

// Description of a loaded model.
struct ModelInfo {
  std::string model_dir;
  std::string layout;  // "original" or "transformers"
  std::string weight_dtype;
  std::string device;
  std::string engine;
  std::int64_t num_parameters = 0;
  std::int32_t num_layers = 0;
  std::int32_t hidden_size = 0;
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t text_vocab = 0;
  std::int32_t num_codebooks = 0;
  std::int32_t codebook_vocab = 0;  // codes + BOS + EOS
  std::int32_t max_sequence = 0;
  std::int32_t block_tokens = 0;
  std::int32_t num_blocks = 0;
  std::int64_t kv_bytes = 0;
  // Memory of the GPU; 0 on the CPU, where weights are mapped files.
  std::int64_t weight_bytes = 0;
  std::int64_t workspace_bytes = 0;  // activations, tables, step staging, sampler
  std::int64_t codec_bytes = 0;      // weights and working memory
  std::int64_t graph_bytes = 0;
  std::int64_t device_bytes = 0;  // what the GPU has
  bool has_codec = false;
  std::int32_t sample_rate = 0;
  std::int32_t samples_per_frame = 0;
  std::int32_t num_threads = 0;
  std::string cpu_isa;                // kernels chosen at run time, e.g. "avx512"
  std::vector<std::string> adapters;  // names that requests may choose
};

struct RuntimeStats {
  std::int64_t submitted = 0;
  std::int64_t finished = 0;
  std::int64_t cancelled = 0;
  std::int64_t failed = 0;
  std::int64_t refused = 0;
  std::int64_t preemptions = 0;
  std::int64_t steps = 0;
  std::int64_t graph_steps = 0;  // of them, launched as one graph
  std::int64_t graph_rows = 0;   // columns computed by those; with graph_steps: how full they were
  std::int64_t columns = 0;      // generated by finished and running requests
  std::int64_t prompt_rows = 0;  // rows of prefill, recomputation included
  // Prompt positions of the requests that began (again), and how many of them the prefix cache had.
  std::int64_t prefix_positions = 0;
  std::int64_t prefix_hits = 0;
  std::int64_t prefix_evictions = 0;  // cached blocks that were given up for others
  std::int32_t running = 0;
  std::int32_t waiting = 0;
  std::int32_t free_blocks = 0;    // those that are cached and not in use included
  std::int32_t cached_blocks = 0;  // in the prefix cache, in use or not
  std::int32_t total_blocks = 0;
  // Time of the step thread. On a device that works asynchronously forward_seconds is enqueueing.
  double forward_seconds = 0;
  double sample_seconds = 0;  // waiting for the device included
  double wait_seconds = 0;    // of it, waiting for an asynchronous device
  double device_seconds = 0;  // that a GPU worked on steps, of the graphs estimated; 0 on the CPU
  double graph_seconds = 0;   // of it, on those that were launched as one graph
  double step_seconds = 0;    // whole loop iterations that had work
};

}  // namespace higgs_rt
