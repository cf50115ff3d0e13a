#include "service.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <stdexcept>

#include "json.h"

namespace service {

namespace {

using Fields = std::map<std::string, JsonValue>;
using higgs_rt::ErrorCode;

constexpr double kMaxSeed = 9007199254740992;  // 2^53: JSON numbers are doubles
constexpr double kMaxNumber = 1e6;             // fits a float; the runtime has limits of its own

int status_of(const higgs_rt::Error& error) {
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kResourceExhausted:
    case ErrorCode::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

// A field's value as T; null is as good as absent.
template <class T>
const T* find(const Fields& fields, const char* name, const char* expected) {
  const auto found = fields.find(name);
  if (found == fields.end() || std::holds_alternative<std::nullptr_t>(found->second)) {
    return nullptr;
  }
  const T* value = std::get_if<T>(&found->second);
  if (value == nullptr) throw HttpError(400, std::string(name) + ": expected " + expected);
  return value;
}

std::string text(const Fields& fields, const char* name) {
  const auto* value = find<std::string>(fields, name, "a string");
  return value == nullptr ? "" : *value;
}

const double* number(const Fields& fields, const char* name) {
  const double* value = find<double>(fields, name, "a number");
  if (value != nullptr && !(std::abs(*value) <= kMaxNumber)) {
    throw HttpError(400, std::string(name) + ": expected a number in -1e6..1e6");
  }
  return value;
}

// A whole number in 0..most.
const double* whole(const Fields& fields, const char* name, double most) {
  const double* value = find<double>(fields, name, "a number");
  if (value != nullptr && (*value < 0 || *value > most || std::floor(*value) != *value)) {
    throw HttpError(400, std::string(name) + ": expected a whole number >= 0");
  }
  return value;
}

void refuse_unknown(const Fields& fields) {
  constexpr std::array<std::string_view, 12> kKnown = {
      "model",       "input", "voice", "response_format", "instructions",   "seed",
      "temperature", "top_k", "top_p", "ras_window",      "ras_max_repeat", "max_seconds"};
  for (const auto& [name, value] : fields) {
    if (std::find(kKnown.begin(), kKnown.end(), name) == kKnown.end()) {
      throw HttpError(400, name + ": expected no such field");
    }
  }
}

higgs_rt::SpeakOptions options_of(const Fields& fields) {
  higgs_rt::SpeakOptions options;
  options.voice = text(fields, "voice");
  options.scene = text(fields, "instructions");
  if (const double* value = whole(fields, "seed", kMaxSeed)) {
    options.seed = static_cast<std::uint64_t>(*value);
  }
  if (const double* value = whole(fields, "top_k", 1 << 20)) {
    options.top_k = static_cast<std::int32_t>(*value);
  }
  if (const double* value = whole(fields, "ras_window", 1 << 20)) {
    options.ras_window = static_cast<std::int32_t>(*value);
  }
  if (const double* value = whole(fields, "ras_max_repeat", 1 << 20)) {
    options.ras_max_repeat = static_cast<std::int32_t>(*value);
  }
  if (const double* value = number(fields, "temperature")) {
    options.temperature = static_cast<float>(*value);
  }
  if (const double* value = number(fields, "top_p")) options.top_p = static_cast<float>(*value);
  if (const double* value = number(fields, "max_seconds")) options.max_seconds = *value;
  return options;
}

void append_integer(std::string& out, std::uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>((value >> (8 * i)) & 0xff));
}

// Of 16-bit mono samples. The length of a stream is not known: readers take it to the end.
std::string wav_header(std::uint32_t sample_rate) {
  constexpr std::uint32_t kUnknown = 0xffffffff;
  std::string out = "RIFF";
  append_integer(out, kUnknown, 4);
  out += "WAVEfmt ";
  append_integer(out, 16, 4);
  append_integer(out, 1, 2);  // PCM
  append_integer(out, 1, 2);  // channels
  append_integer(out, sample_rate, 4);
  append_integer(out, 2 * sample_rate, 4);
  append_integer(out, 2, 2);
  append_integer(out, 16, 2);
  out += "data";
  append_integer(out, kUnknown, 4);
  return out;
}

std::string pcm_bytes(const std::vector<float>& samples) {
  std::string out;
  out.reserve(2 * samples.size());
  for (const float sample : samples) {
    const long value = std::lrint(std::clamp(sample, -1.0F, 1.0F) * 32767.0F);
    append_integer(out, static_cast<std::uint32_t>(value), 2);
  }
  return out;
}

void speech(const higgs_rt::Speaker& speaker, const HttpRequest& request, HttpReply& reply) {
  const auto type = request.headers.find("content-type");
  if (type == request.headers.end() || !type->second.starts_with("application/json")) {
    throw HttpError(415, "expected a body of type application/json");
  }
  Fields fields;
  try {
    fields = parse_json_object(request.body);
  } catch (const std::invalid_argument& error) {
    throw HttpError(400, error.what());
  }
  refuse_unknown(fields);
  std::string format = text(fields, "response_format");
  if (format.empty()) format = "wav";
  if (format != "wav" && format != "pcm") {
    throw HttpError(400, "response_format: expected wav or pcm, got " + format);
  }

  // Dropping the stream, also by an exception, cancels the request.
  higgs_rt::Stream stream = speaker.stream(text(fields, "input"), options_of(fields));
  higgs_rt::Chunk chunk;
  while (true) {
    using Poll = higgs_rt::Stream::Poll;
    const Poll got = stream.next_for(chunk, std::chrono::milliseconds(50));
    if (got == Poll::kEnd) break;
    if (reply.client_gone()) throw ClientGone();
    if (got == Poll::kTimeout) continue;
    if (chunk.finish == higgs_rt::FinishReason::kCancelled) {
      throw HttpError(503, "the service is shutting down");
    }
    if (!reply.begun()) {
      reply.begin_chunked(format == "wav" ? "audio/wav" : "audio/pcm");
      const auto rate = static_cast<std::uint32_t>(speaker.runtime().info().sample_rate);
      if (format == "wav") reply.send_chunk(wav_header(rate));
    }
    reply.send_chunk(pcm_bytes(chunk.pcm));
  }
  reply.end_chunked();
}

void voices(const higgs_rt::Speaker& speaker, HttpReply& reply) {
  std::string body;
  for (const std::string& name : speaker.voices()) {
    body += (body.empty() ? "" : ", ") + json_string(name);
  }
  reply.send(200, "application/json", "{\"voices\": [" + body + "]}\n");
}

void health(const higgs_rt::Speaker& speaker, HttpReply& reply) {
  const higgs_rt::RuntimeStats stats = speaker.runtime().stats();
  reply.send(200, "application/json",
             "{\"status\": \"ok\", \"running\": " + std::to_string(stats.running) +
                 ", \"waiting\": " + std::to_string(stats.waiting) +
                 ", \"cancelled\": " + std::to_string(stats.cancelled) + "}\n");
}

}  // namespace

void handle(const higgs_rt::Speaker& speaker, const HttpRequest& request, HttpReply& reply) {
  const auto expect = [&](const char* method) {
    if (request.method != method) {
      throw HttpError(405, "expected " + std::string(method) + ", got " + request.method);
    }
  };
  try {
    if (request.path == "/v1/audio/speech") {
      expect("POST");
      speech(speaker, request, reply);
    } else if (request.path == "/v1/audio/voices") {
      expect("GET");
      voices(speaker, reply);
    } else if (request.path == "/healthz") {
      expect("GET");
      health(speaker, reply);
    } else {
      throw HttpError(404, "no such path");
    }
  } catch (const higgs_rt::Error& error) {
    throw HttpError(status_of(error), error.what());
  }
}

}  // namespace service
