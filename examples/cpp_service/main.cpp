// A small HTTP service that speaks, in C++ alone:
//   speech_service MODEL_DIR [--codec DIR] [--voices DIR] [--device cpu|cuda] [--host ADDRESS]
//                  [--port N] [--threads N] [--max-batch N]
// It prints the address it listens on. SIGTERM or SIGINT end it: running answers get five seconds.
// How to ask it: docs/embedding.md.
#include <pthread.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <string>
#include <thread>

#include "higgs_rt/speaker.h"
#include "service.h"

namespace {

constexpr int kGraceSeconds = 5;

struct Settings {
  higgs_rt::RuntimeConfig runtime;
  higgs_rt::SpeakerConfig speaker;
  std::string host = "127.0.0.1";
  int port = 8080;
};

// False when the arguments are not understood.
bool parse(int argc, char** argv, Settings& settings) {
  if (argc < 2 || argc % 2 != 0) return false;
  settings.runtime.model_dir = argv[1];
  const std::map<std::string, std::string*> texts = {{"--codec", &settings.runtime.codec_dir},
                                                     {"--voices", &settings.speaker.voices_dir},
                                                     {"--device", &settings.runtime.device},
                                                     {"--host", &settings.host}};
  const std::map<std::string, int*> numbers = {{"--port", &settings.port},
                                               {"--threads", &settings.runtime.num_threads},
                                               {"--max-batch", &settings.runtime.max_batch}};
  for (int i = 2; i < argc; i += 2) {
    if (const auto text = texts.find(argv[i]); text != texts.end()) {
      *text->second = argv[i + 1];
    } else if (const auto number = numbers.find(argv[i]); number != numbers.end()) {
      char* end = nullptr;
      const long value = std::strtol(argv[i + 1], &end, 10);
      if (*end != '\0' || value < 0 || value > 65535) return false;
      *number->second = static_cast<int>(value);
    } else {
      return false;
    }
  }
  return true;
}

void serve(const Settings& settings) {
  // Before any thread begins, so that all inherit the mask and the signals wait for sigwait().
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const auto speaker = higgs_rt::Speaker::load(settings.runtime, settings.speaker);
  service::HttpServer server(settings.host, settings.port,
                             [&](const service::HttpRequest& request, service::HttpReply& reply) {
                               service::handle(*speaker, request, reply);
                             });
  std::thread acceptor([&] { server.run(); });
  std::printf("listening on http://%s:%d\n", settings.host.c_str(), server.port());
  std::fflush(stdout);

  int signal = 0;
  sigwait(&signals, &signal);
  server.stop();
  acceptor.join();
  if (!server.wait_idle(kGraceSeconds)) server.drop_connections();  // which cancels their requests
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  if (!parse(argc, argv, settings)) {
    std::fprintf(stderr,
                 "usage: speech_service MODEL_DIR [--codec DIR] [--voices DIR] [--device NAME]\n"
                 "       [--host ADDRESS] [--port N] [--threads N] [--max-batch N]\n");
    return 2;
  }
  try {
    serve(settings);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
