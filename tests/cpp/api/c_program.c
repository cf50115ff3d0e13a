/* What a C program does with the library; higgs_c_program returns NULL or the first fault. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "higgs_rt/higgs_rt.h"

static char fault[512];

#define EXPECT(condition)                                                              \
  do {                                                                                 \
    if (!(condition)) {                                                                \
      snprintf(fault, sizeof fault, "line %d: expected %s (%s)", __LINE__, #condition, \
               higgs_last_error());                                                    \
      return fault;                                                                    \
    }                                                                                  \
  } while (0)

static const int32_t kIds[] = {1, 2, 3, 250, 301};

static void fill(higgs_request* request, higgs_segment* segment) {
  memset(segment, 0, sizeof *segment);
  segment->kind = HIGGS_SEGMENT_TEXT;
  segment->count = sizeof kIds / sizeof kIds[0];
  segment->ids = kIds;
  higgs_request_init(request, sizeof *request);
  request->prompt = segment;
  request->num_segments = 1;
  request->max_columns = 60;
  request->top_k = 5;
  request->ras_window = 0;
  request->seed = 9;
}

typedef struct totals {
  size_t samples;
  int32_t frames;
  int32_t columns;
  int32_t finish;
  volatile int ended;
} totals;

static void add(const higgs_chunk* chunk, void* user) {
  totals* sum = (totals*)user;
  sum->samples += chunk->num_samples;
  sum->frames += chunk->num_frames;
  if (!chunk->last) return;
  sum->columns = chunk->num_columns;
  sum->finish = chunk->finish;
  sum->ended = 1;
}

static const char* pull(higgs_runtime* runtime) {
  higgs_request request;
  higgs_segment segment;
  higgs_stream* stream = NULL;
  totals sum = {0};
  higgs_status status;
  fill(&request, &segment);
  request.stream = 1;
  EXPECT(higgs_submit(runtime, &request, &stream) == HIGGS_OK);
  EXPECT(higgs_stream_id(stream) > 0);
  {
    higgs_chunk unset = {0}; /* refused, and no chunk is lost */
    EXPECT(higgs_stream_next(stream, -1, &unset) == HIGGS_INVALID_ARGUMENT);
  }
  do {
    higgs_chunk chunk = HIGGS_STRUCT(higgs_chunk);
    status = higgs_stream_next(stream, 10, &chunk);
    if (status == HIGGS_OK) add(&chunk, &sum);
  } while (status == HIGGS_OK || status == HIGGS_TIMEOUT);
  EXPECT(status == HIGGS_END);
  EXPECT(sum.finish == HIGGS_FINISH_LENGTH && sum.columns == 60 && sum.frames == 52);
  EXPECT(sum.samples == 52 * 960);
  EXPECT(higgs_stream_done(stream) == 1);
  {
    higgs_timing timing = HIGGS_STRUCT(higgs_timing);
    EXPECT(higgs_stream_timing(stream, &timing) == HIGGS_OK);
    EXPECT(timing.first_chunk > 0 && timing.finished >= timing.first_chunk);
  }
  higgs_stream_free(stream);
  return NULL;
}

static const char* call_back(higgs_runtime* runtime) {
  higgs_request request;
  higgs_segment segment;
  higgs_stream* stream = NULL;
  totals sum = {0};
  fill(&request, &segment);
  EXPECT(higgs_submit(runtime, &request, &stream) == HIGGS_OK);
  EXPECT(higgs_stream_on_chunk(stream, NULL, NULL) == HIGGS_INVALID_ARGUMENT);
  EXPECT(higgs_stream_on_chunk(stream, add, &sum) == HIGGS_OK);
  /* Shutting down joins the thread that calls back, so `sum` is complete and safe to read. */
  while (!higgs_stream_done(stream)) {
    const struct timespec pause = {0, 1000000};
    nanosleep(&pause, NULL);
  }
  EXPECT(higgs_runtime_shutdown(runtime) == HIGGS_OK);
  EXPECT(sum.ended && sum.finish == HIGGS_FINISH_LENGTH && sum.samples == 52 * 960);
  higgs_stream_free(stream);
  EXPECT(higgs_submit(runtime, &request, &stream) == HIGGS_UNAVAILABLE);
  EXPECT(stream == NULL);
  return NULL;
}

static const char* faults(higgs_runtime* runtime) {
  higgs_request request;
  higgs_segment segment;
  higgs_stream* stream = NULL;
  higgs_stats stats = HIGGS_STRUCT(higgs_stats);
  fill(&request, &segment);
  request.temperature = -1;
  EXPECT(higgs_submit(runtime, &request, &stream) == HIGGS_INVALID_ARGUMENT);
  EXPECT(strstr(higgs_last_error(), "temperature") != NULL);
  fill(&request, &segment);
  request.output = 5;
  EXPECT(higgs_submit(runtime, &request, &stream) == HIGGS_INVALID_ARGUMENT);
  EXPECT(strstr(higgs_last_error(), "[output] expected 0..1, got 5") != NULL);
  fill(&request, &segment);
  segment.ids = NULL;
  EXPECT(higgs_submit(runtime, &request, &stream) == HIGGS_INVALID_ARGUMENT);
  fill(&request, &segment);
  request.max_columns = 300;
  request.stream = 1;
  EXPECT(higgs_submit(runtime, &request, &stream) == HIGGS_OK);
  higgs_stream_cancel(stream);
  higgs_stream_free(stream);
  higgs_stream_free(NULL);
  EXPECT(higgs_runtime_stats(runtime, &stats) == HIGGS_OK);
  EXPECT(stats.submitted == 2);
  return NULL;
}

static const char* decode(higgs_runtime* runtime) {
  static const int32_t codes[8 * 2] = {0};
  float pcm[2 * 960];
  EXPECT(higgs_runtime_decode_frames(runtime, codes, 2, pcm, 2 * 960) == HIGGS_OK);
  EXPECT(higgs_runtime_decode_frames(runtime, codes, 2, pcm, 100) == HIGGS_INVALID_ARGUMENT);
  EXPECT(strstr(higgs_last_error(), "[capacity] expected at least 1920, got 100") != NULL);
  return NULL;
}

const char* higgs_c_program(const char* model_dir) {
  higgs_runtime_config config;
  higgs_runtime* runtime = NULL;
  higgs_model_info info = HIGGS_STRUCT(higgs_model_info);
  const char* result;
  EXPECT(strlen(higgs_version()) > 0 && strstr(higgs_build_info(), higgs_version()) != NULL);
  higgs_runtime_config_init(&config, sizeof config);
  config.model_dir = "/nowhere";
  EXPECT(higgs_runtime_load(&config, &runtime) == HIGGS_NOT_FOUND);
  EXPECT(strstr(higgs_last_error(), "/nowhere") != NULL);
  config.model_dir = model_dir;
  config.num_threads = 2;
  config.max_sequence = 512;
  EXPECT(higgs_runtime_load(&config, &runtime) == HIGGS_OK);
  EXPECT(higgs_runtime_info(runtime, &info) == HIGGS_OK);
  EXPECT(info.num_codebooks == 8 && info.samples_per_frame == 960 && info.has_codec == 1);
  EXPECT(strcmp(info.layout, "transformers") == 0);
  result = pull(runtime);
  if (result == NULL) result = faults(runtime);
  if (result == NULL) result = decode(runtime);
  if (result == NULL) result = call_back(runtime);
  higgs_runtime_free(runtime);
  higgs_runtime_free(NULL);
  return result;
}

const char* higgs_c_adapters(const char* model_dir, const char* adapter_dir) {
  const higgs_adapter adapters[1] = {{"anna", adapter_dir}};
  higgs_runtime_config config;
  higgs_runtime* runtime = NULL;
  higgs_model_info info = HIGGS_STRUCT(higgs_model_info);
  higgs_request request;
  higgs_segment segment;
  higgs_stream* stream = NULL;
  const char* name = NULL;
  const char* result;
  higgs_runtime_config_init(&config, sizeof config);
  config.model_dir = model_dir;
  config.num_threads = 2;
  config.max_sequence = 512;
  config.num_adapters = 1;
  EXPECT(higgs_runtime_load(&config, &runtime) == HIGGS_INVALID_ARGUMENT);
  EXPECT(strstr(higgs_last_error(), "[adapters] expected a pointer, got NULL") != NULL);
  config.adapters = adapters;
  EXPECT(higgs_runtime_load(&config, &runtime) == HIGGS_OK);
  EXPECT(higgs_runtime_info(runtime, &info) == HIGGS_OK && info.num_adapters == 1);
  EXPECT(higgs_runtime_adapter_name(runtime, 0, &name) == HIGGS_OK && strcmp(name, "anna") == 0);
  EXPECT(higgs_runtime_adapter_name(runtime, 1, &name) == HIGGS_END && name == NULL);
  fill(&request, &segment);
  request.adapter = "bert";
  EXPECT(higgs_submit(runtime, &request, &stream) == HIGGS_INVALID_ARGUMENT);
  EXPECT(strstr(higgs_last_error(), "adapter: expected one of anna, got \"bert\"") != NULL);
  request.adapter = "anna";
  EXPECT(higgs_submit(runtime, &request, &stream) == HIGGS_OK);
  higgs_stream_free(stream);
  result = pull(runtime); /* without one */
  higgs_runtime_free(runtime);
  return result;
}
