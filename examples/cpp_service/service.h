// The routes of the service.
#pragma once

#include "higgs_rt/speaker.h"
#include "http.h"

namespace service {

//   POST /v1/audio/speech  {"input", "voice", "response_format": "wav" | "pcm", "instructions",
//                           "seed", "temperature", "top_k", "top_p", "ras_window",
//                           "ras_max_repeat", "max_seconds", "model"}
//                          -> 16-bit mono audio, sent in chunks while it is made
//   GET /v1/audio/voices   -> {"voices": [...]}
//   GET /healthz           -> {"status": "ok", "running": n, "waiting": n, "cancelled": n}
// Called from many threads at once. A client that goes away cancels its request.
void handle(const higgs_rt::Speaker& speaker, const HttpRequest& request, HttpReply& reply);

}  // namespace service
