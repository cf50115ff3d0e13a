/* C API: load a model, speak a text or submit requests, read chunks of speech by pull or callback.
 *
 *   higgs_runtime_config config;
 *   higgs_runtime_config_init(&config, sizeof config);
 *   config.model_dir = "model";
 *   higgs_runtime* runtime = NULL;
 *   if (higgs_runtime_load(&config, &runtime) != HIGGS_OK) puts(higgs_last_error());
 *
 * Structs that may grow begin with `struct_size`, the size the caller was compiled with. An _init
 * function sets it together with the defaults; for structs that the library fills, the caller sets
 * it (HIGGS_STRUCT does). A library that knows fewer fields refuses a caller that uses the others.
 *
 * Every function may be called from any thread, but one stream is read by one thread at a time.
 * After a fork, the child may free what it inherited and must load anew for everything else.
 * Functions that return higgs_status leave a message in higgs_last_error() when they fail.
 */
#ifndef HIGGS_RT_HIGGS_RT_H_
#define HIGGS_RT_HIGGS_RT_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* NOLINTBEGIN(readability-identifier-naming): C names */
typedef struct higgs_runtime higgs_runtime;
typedef struct higgs_stream higgs_stream;

typedef enum higgs_status {
  HIGGS_OK = 0,
  HIGGS_TIMEOUT = 1, /* higgs_stream_next: nothing arrived in time; try again */
  HIGGS_END = 2,     /* higgs_stream_next: the last chunk was delivered before */
  HIGGS_INVALID_ARGUMENT = -1,
  HIGGS_NOT_FOUND = -2,
  HIGGS_RESOURCE_EXHAUSTED = -3, /* queue, memory or KV blocks are used up */
  HIGGS_UNSUPPORTED = -4,
  HIGGS_CANCELLED = -5,
  HIGGS_UNAVAILABLE = -6, /* the runtime is shutting down */
  HIGGS_INTERNAL = -7
} higgs_status;

/* Sets `struct_size` of a struct variable that the library is to fill, all else zero. */
#define HIGGS_STRUCT(type) {sizeof(type)}

/* --- Runtime ------------------------------------------------------------------------------- */

/* A LoRA adapter that requests choose by its name. Never grows. */
typedef struct higgs_adapter {
  const char* name;
  const char* dir; /* peft's format */
} higgs_adapter;

typedef struct higgs_runtime_config {
  size_t struct_size;
  const char* model_dir;   /* LM checkpoint directory; required */
  const char* codec_dir;   /* "": <model_dir>/codec; "none": no codec, frames only */
  const char* device;      /* "cpu", "cuda", "cuda:N" */
  const char* backend;     /* "native" or "tensorrt" */
  const char* plan_dir;    /* of the tensorrt backend; "": <model_dir>/tensorrt */
  int32_t num_threads;     /* CPU compute threads; 0: all cores this process may use */
  int32_t max_batch;       /* requests that run at the same time */
  int32_t max_queue;       /* requests that may wait */
  int32_t max_step_tokens; /* rows of one step; 0: chosen by the device */
  int32_t max_sequence;    /* prompt + generated positions of one request */
  int32_t block_tokens;
  int32_t num_blocks;          /* KV blocks; 0: chosen from max_batch, on a GPU from its memory */
  int32_t max_buffered_chunks; /* per stream; a slower reader pauses its own request */
  double gpu_memory_fraction;  /* in (0, 1]; the rest of the GPU's memory is left free */
  int32_t max_held_steps;      /* that new requests may wait for others; -1: chosen by the device */
  double prefix_cache;         /* share of the KV blocks, 0..1, that may keep beginnings of prompts
                                * for requests that begin alike; 0: off */
  const char* adapter_dir;     /* LoRA adapter in peft's format, merged while the weights load;
                                * "": none. Native backend only */
  const higgs_adapter* adapters; /* kept apart from the weights, for higgs_request.adapter. Native
                                  * backend only */
  size_t num_adapters;
} higgs_runtime_config;

typedef struct higgs_model_info {
  size_t struct_size;
  const char* layout; /* strings belong to the runtime */
  const char* weight_dtype;
  const char* device;
  const char* engine;
  int64_t num_parameters;
  int32_t num_layers;
  int32_t hidden_size;
  int32_t text_vocab;
  int32_t num_codebooks;
  int32_t codebook_vocab; /* codes + BOS + EOS */
  int32_t max_sequence;
  int32_t has_codec;
  int32_t sample_rate; /* Hz; 0 without a codec */
  int32_t samples_per_frame;
  int32_t num_blocks; /* KV blocks */
  int64_t kv_bytes;
  int64_t weight_bytes; /* this and what follows: memory of the GPU, 0 on the CPU */
  int64_t workspace_bytes;
  int64_t codec_bytes;
  int64_t graph_bytes;
  int64_t device_bytes; /* what the GPU has */
  int32_t num_adapters; /* that requests may choose */
} higgs_model_info;

typedef struct higgs_stats {
  size_t struct_size;
  int64_t submitted;
  int64_t finished;
  int64_t cancelled;
  int64_t failed;
  int64_t refused;
  int64_t preemptions;
  int64_t steps;
  int64_t columns;
  int64_t prompt_rows;
  int32_t running;
  int32_t waiting;
  int32_t free_blocks;
  int32_t total_blocks;
  double forward_seconds;
  double sample_seconds;
  double step_seconds;
  double wait_seconds;      /* of sample_seconds: waiting for a GPU */
  double device_seconds;    /* that a GPU worked on steps */
  int64_t graph_steps;      /* of steps: launched as one graph */
  double graph_seconds;     /* of device_seconds: on those */
  int64_t prefix_positions; /* prompt positions of the requests that began */
  int64_t prefix_hits;      /* of them: found in the prefix cache */
  int64_t prefix_evictions; /* cached blocks given up for others */
  int32_t cached_blocks;    /* some of them in use; the others count as free */
  int64_t graph_rows;       /* columns computed by graph_steps */
} higgs_stats;

void higgs_runtime_config_init(higgs_runtime_config* config, size_t struct_size);
higgs_status higgs_runtime_load(const higgs_runtime_config* config, higgs_runtime** runtime);
/* Cancels what runs or waits and joins all threads; streams stay readable. Idempotent. */
higgs_status higgs_runtime_shutdown(higgs_runtime* runtime);
void higgs_runtime_free(higgs_runtime* runtime); /* shuts down; NULL is allowed */
higgs_status higgs_runtime_info(const higgs_runtime* runtime, higgs_model_info* info);
/* The name of adapter number `index`, in the order of loading; HIGGS_END past the last one. It
 * belongs to the runtime. */
higgs_status higgs_runtime_adapter_name(const higgs_runtime* runtime, size_t index,
                                        const char** name);
higgs_status higgs_runtime_stats(const higgs_runtime* runtime, higgs_stats* stats);
/* codes [num_codebooks, num_frames] -> pcm [num_frames * samples_per_frame], mono, in [-1, 1].
 * `capacity` counts floats. */
higgs_status higgs_runtime_decode_frames(higgs_runtime* runtime, const int32_t* codes,
                                         int32_t num_frames, float* pcm, size_t capacity);

/* --- Requests ------------------------------------------------------------------------------ */

typedef enum higgs_segment_kind {
  HIGGS_SEGMENT_TEXT = 0,  /* ids [count]: text token ids */
  HIGGS_SEGMENT_AUDIO = 1, /* ids [count]: codes [num_codebooks, num_frames] row-major */
  HIGGS_SEGMENT_TABLE = 2  /* rows [count]: fp32 embeddings [n, hidden_size] row-major */
} higgs_segment_kind;

typedef struct higgs_segment { /* never grows: requests hold arrays of it */
  int32_t kind;                /* higgs_segment_kind */
  size_t count;                /* elements of `ids` or `rows` */
  const int32_t* ids;
  const float* rows;
} higgs_segment;

typedef enum higgs_output { HIGGS_OUTPUT_WAVEFORM = 0, HIGGS_OUTPUT_FRAMES = 1 } higgs_output;

typedef enum higgs_stream_rule {
  HIGGS_RULE_FIRST_EOS = 0,
  HIGGS_RULE_TRANSFORMERS = 1
} higgs_stream_rule;

/* The library copies what the pointers refer to. The prompt ends right before the first audio
 * column, i.e. with the text id of <|audio_out_bos|>. */
typedef struct higgs_request {
  size_t struct_size;
  const higgs_segment* prompt;
  size_t num_segments;
  int32_t max_columns; /* upper limit of generated columns, BOS column included */
  int32_t output;      /* higgs_output */
  int32_t stream;      /* 1: chunks arrive while the request runs; 0: one chunk at the end */
  int32_t first_chunk_frames;
  int32_t max_chunk_frames;
  float temperature;  /* 0: greedy */
  int32_t top_k;      /* 0: off */
  float top_p;        /* 1: off */
  int32_t ras_window; /* 0: off */
  int32_t ras_max_repeat;
  uint64_t seed;
  int32_t rule;        /* higgs_stream_rule */
  const char* adapter; /* one of the runtime's by its name; "": none */
} higgs_request;

typedef enum higgs_finish {
  HIGGS_FINISH_NONE = 0,
  HIGGS_FINISH_STOP = 1,
  HIGGS_FINISH_LENGTH = 2,
  HIGGS_FINISH_CANCELLED = 3,
  HIGGS_FINISH_ERROR = 4
} higgs_finish;

/* Pointers stay valid until the next higgs_stream_next on the stream, or its end of life; inside a
 * callback, until it returns. */
typedef struct higgs_chunk {
  size_t struct_size;
  const float* pcm; /* mono in [-1, 1] */
  size_t num_samples;
  const int32_t* frames; /* codes [num_codebooks, num_frames] */
  int32_t num_frames;
  int32_t last;           /* 1: no chunk follows, and the fields below are set */
  int32_t finish;         /* higgs_finish */
  const char* error;      /* "" unless finish is HIGGS_FINISH_ERROR */
  const int32_t* columns; /* [num_columns, num_codebooks], the all-BOS column first */
  int32_t num_columns;
} higgs_chunk;

typedef struct higgs_timing { /* seconds since submission; negative: has not happened yet */
  size_t struct_size;
  double started;
  double first_column;
  double first_chunk;
  double finished;
} higgs_timing;

void higgs_request_init(higgs_request* request, size_t struct_size);
higgs_status higgs_submit(higgs_runtime* runtime, const higgs_request* request,
                          higgs_stream** stream);

/* Waits up to `timeout_ms` for the next chunk; negative: without limit. Returns HIGGS_OK with a
 * chunk, HIGGS_TIMEOUT, HIGGS_END, or the error with which the request failed. */
higgs_status higgs_stream_next(higgs_stream* stream, int64_t timeout_ms, higgs_chunk* chunk);

/* Calls back from a runtime thread for every chunk, the last one included; errors arrive in
 * chunk->error. Use either this, once, or higgs_stream_next. The callback must return soon. It gets
 * a full higgs_chunk of this library's size. */
typedef void (*higgs_chunk_callback)(const higgs_chunk* chunk, void* user);
higgs_status higgs_stream_on_chunk(higgs_stream* stream, higgs_chunk_callback callback, void* user);

void higgs_stream_cancel(higgs_stream* stream); /* returns at once */
int32_t higgs_stream_done(const higgs_stream* stream);
uint64_t higgs_stream_id(const higgs_stream* stream);
higgs_status higgs_stream_timing(const higgs_stream* stream, higgs_timing* timing);
/* Cancels the request if it still runs. NULL is allowed. */
void higgs_stream_free(higgs_stream* stream);

/* --- Speaker: from text to speech -------------------------------------------------------------
 * A runtime with the model's tokenizer.json, prompts and voices. Texts and names are UTF-8. */

typedef struct higgs_speaker higgs_speaker;

typedef enum higgs_placement {
  HIGGS_PLACEMENT_TURNS = 0, /* reference recordings as earlier turns, with their transcripts */
  HIGGS_PLACEMENT_SYSTEM = 1 /* in the system message, without */
} higgs_placement;

typedef enum higgs_convention {
  HIGGS_CONVENTION_ORIGINAL = 0,
  HIGGS_CONVENTION_TRANSFORMERS = 1 /* the chat template of transformers */
} higgs_convention;

typedef struct higgs_speaker_config {
  size_t struct_size;
  const char* voices_dir; /* "": $HIGGS_RT_VOICES, or the user's folder for data */
  int32_t convention;     /* higgs_convention */
  int32_t max_text_chars; /* of one text */
} higgs_speaker_config;

/* Of a dialogue: exactly one of the two is neither NULL nor "". Never grows. */
typedef struct higgs_speaker_choice {
  const char* voice;       /* name of a stored voice */
  const char* description; /* in words */
} higgs_speaker_choice;

/* higgs_speak_options_init sets the model's own sampling. */
typedef struct higgs_speak_options {
  size_t struct_size;
  const char* voice;                    /* name of a stored voice; "": the model's own choice */
  const higgs_speaker_choice* speakers; /* in place of `voice`: SPEAKER0, SPEAKER1, ... */
  size_t num_speakers;
  const char* scene;      /* where it is recorded, or how it sounds; "": none */
  int32_t placement;      /* higgs_placement */
  int32_t normalize;      /* 1: punctuation, units and sound events as the model knows them */
  int32_t spelled_out;    /* 1: take numbers and abbreviations as they are; 0: refuse them */
  int32_t max_turn_chars; /* characters that the model speaks in one go; 0: no limit */
  float temperature;      /* 0: greedy */
  int32_t top_k;          /* 0: off */
  float top_p;            /* 1: off */
  int32_t ras_window;     /* 0: off */
  int32_t ras_max_repeat;
  uint64_t seed;
  int32_t rule;       /* higgs_stream_rule */
  double max_seconds; /* of speech; 0: a generous estimate from the text */
  int32_t stream;     /* 1: chunks arrive while the request runs; 0: one chunk at the end */
  int32_t first_chunk_frames;
  int32_t max_chunk_frames;
  const char* adapter; /* one of the runtime's by its name; "": none */
} higgs_speak_options;

void higgs_speaker_config_init(higgs_speaker_config* config, size_t struct_size);
/* `config` NULL: the defaults. */
higgs_status higgs_speaker_load(const higgs_runtime_config* runtime,
                                const higgs_speaker_config* config, higgs_speaker** speaker);
void higgs_speaker_free(higgs_speaker* speaker); /* shuts down; NULL is allowed */
/* For its info and statistics; belongs to the speaker and must not be freed. */
higgs_runtime* higgs_speaker_runtime(higgs_speaker* speaker);
/* The name of the stored voice number `index`, in order; HIGGS_END past the last one. */
higgs_status higgs_speaker_voice_name(const higgs_speaker* speaker, size_t index, char* name,
                                      size_t capacity);
/* Needs a speaker because a model brings its own sampling. */
higgs_status higgs_speak_options_init(const higgs_speaker* speaker, higgs_speak_options* options,
                                      size_t struct_size);
/* Queues the request and returns at once. `options` NULL: the defaults. */
higgs_status higgs_speak(higgs_speaker* speaker, const char* text,
                         const higgs_speak_options* options, higgs_stream** stream);

/* --- Errors and version -------------------------------------------------------------------- */

/* Message of the last failure in the calling thread, "" before the first; owned by the library. */
const char* higgs_last_error(void);
const char* higgs_version(void);
const char* higgs_build_info(void);
/* NOLINTEND(readability-identifier-naming) */

#ifdef __cplusplus
}
#endif

#endif /* HIGGS_RT_HIGGS_RT_H_ */
