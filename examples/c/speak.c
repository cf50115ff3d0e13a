/* Speaks a text and writes a WAV file while the speech is made:
 *   speak_c MODEL_DIR OUT.wav TEXT [VOICE [SEED]]
 * As examples/cpp/speak.cpp, in C. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "higgs_rt/higgs_rt.h"

static int fail(const char* what) {
  fprintf(stderr, "%s: %s\n", what, higgs_last_error());
  return 1;
}

static void write_integer(FILE* file, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) fputc((int)((value >> (8 * i)) & 0xff), file);
}

/* Mono, 16 bits. Written again at the end, when the size is known. */
static void write_header(FILE* file, uint32_t rate, uint32_t bytes) {
  rewind(file);
  fputs("RIFF", file);
  write_integer(file, 36 + bytes, 4);
  fputs("WAVEfmt ", file);
  write_integer(file, 16, 4);
  write_integer(file, 1, 2); /* PCM */
  write_integer(file, 1, 2); /* channels */
  write_integer(file, rate, 4);
  write_integer(file, 2 * rate, 4);
  write_integer(file, 2, 2);
  write_integer(file, 16, 2);
  fputs("data", file);
  write_integer(file, bytes, 4);
}

static int write_speech(higgs_stream* stream, FILE* file, uint32_t rate) {
  higgs_chunk chunk = HIGGS_STRUCT(higgs_chunk);
  higgs_status status;
  uint32_t samples = 0;
  write_header(file, rate, 0);
  while ((status = higgs_stream_next(stream, -1, &chunk)) == HIGGS_OK) {
    for (size_t i = 0; i < chunk.num_samples; ++i) { /* samples are within [-1, 1] */
      write_integer(file, (uint32_t)lrintf(chunk.pcm[i] * 32767.0F), 2);
    }
    samples += (uint32_t)chunk.num_samples;
  }
  if (status != HIGGS_END) return fail("speech");
  write_header(file, rate, 2 * samples);
  printf("%.2f s of speech\n", samples / (double)rate);
  return 0;
}

static int speak(higgs_speaker* speaker, int argc, char** argv) {
  higgs_model_info info = HIGGS_STRUCT(higgs_model_info);
  higgs_speak_options options;
  higgs_stream* stream = NULL;
  FILE* file;
  int result;
  if (higgs_runtime_info(higgs_speaker_runtime(speaker), &info) != HIGGS_OK) return fail("info");
  if (higgs_speak_options_init(speaker, &options, sizeof options) != HIGGS_OK) {
    return fail("options");
  }
  if (argc > 4) options.voice = argv[4];
  if (argc > 5) options.seed = strtoull(argv[5], NULL, 10);
  if (higgs_speak(speaker, argv[3], &options, &stream) != HIGGS_OK) return fail("speak");
  file = fopen(argv[2], "wb");
  if (file == NULL) {
    perror(argv[2]);
    higgs_stream_free(stream);
    return 1;
  }
  result = write_speech(stream, file, (uint32_t)info.sample_rate);
  higgs_stream_free(stream);
  if (fclose(file) != 0) {
    perror(argv[2]);
    result = 1;
  }
  return result;
}

int main(int argc, char** argv) {
  higgs_runtime_config config;
  higgs_speaker* speaker = NULL;
  int result;
  if (argc < 4 || argc > 6) {
    fprintf(stderr, "usage: speak_c MODEL_DIR OUT.wav TEXT [VOICE [SEED]]\n");
    return 2;
  }
  higgs_runtime_config_init(&config, sizeof config);
  config.model_dir = argv[1];
  if (higgs_speaker_load(&config, NULL, &speaker) != HIGGS_OK) return fail("load");
  result = speak(speaker, argc, argv);
  higgs_speaker_free(speaker);
  return result;
}
