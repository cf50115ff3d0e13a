/* Speaks with a model directory and text token ids, chunk by chunk, and writes raw fp32 samples:
 *   speak_c MODEL_DIR OUT.f32 ID ID ID ...
 * Play with: ffplay -f f32le -ar 24000 OUT.f32 */
#include <stdio.h>
#include <stdlib.h>

#include "higgs_rt/higgs_rt.h"

static int fail(const char* what) {
  fprintf(stderr, "%s: %s\n", what, higgs_last_error());
  return 1;
}

static int read_all(higgs_stream* stream, FILE* file) {
  higgs_chunk chunk = HIGGS_STRUCT(higgs_chunk);
  higgs_status status;
  size_t samples = 0;
  while ((status = higgs_stream_next(stream, -1, &chunk)) == HIGGS_OK) {
    fwrite(chunk.pcm, sizeof(float), chunk.num_samples, file);
    samples += chunk.num_samples;
  }
  if (status != HIGGS_END) return fail("speech");
  printf("%zu samples\n", samples);
  return 0;
}

static int speak(higgs_runtime* runtime, const char* path, int count, char** words) {
  higgs_request request;
  higgs_segment prompt = {HIGGS_SEGMENT_TEXT, (size_t)count, NULL, NULL};
  higgs_stream* stream = NULL;
  FILE* file = fopen(path, "wb");
  int32_t* ids = malloc((size_t)count * sizeof *ids);
  int result = 1;
  if (file != NULL && ids != NULL) {
    for (int i = 0; i < count; ++i) ids[i] = atoi(words[i]);
    prompt.ids = ids;
    higgs_request_init(&request, sizeof request);
    request.prompt = &prompt;
    request.num_segments = 1;
    request.max_columns = 500;
    request.stream = 1;
    result = higgs_submit(runtime, &request, &stream) == HIGGS_OK ? read_all(stream, file)
                                                                  : fail("submit");
  } else {
    perror(path);
  }
  higgs_stream_free(stream);
  free(ids);
  if (file != NULL) fclose(file);
  return result;
}

int main(int argc, char** argv) {
  higgs_runtime_config config;
  higgs_runtime* runtime = NULL;
  int result;
  if (argc < 4) {
    fprintf(stderr, "usage: speak_c MODEL_DIR OUT.f32 ID ID ID ...\n");
    return 2;
  }
  higgs_runtime_config_init(&config, sizeof config);
  config.model_dir = argv[1];
  if (higgs_runtime_load(&config, &runtime) != HIGGS_OK) return fail("load");
  result = speak(runtime, argv[2], argc - 3, argv + 3);
  higgs_runtime_free(runtime);
  return result;
}
