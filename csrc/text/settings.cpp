#include "text/settings.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "core/check.h"
#include "io/json_object.h"

namespace higgs_rt {

namespace {

constexpr std::string_view kFields[] = {"max_turn_chars", "context_turns", "dialogue",
                                        "temperature",    "top_k",         "top_p"};
constexpr std::int32_t kMinTurnChars = 8;

std::int32_t at_least(const JsonObject& object, const char* name, std::int32_t fallback,
                      std::int32_t least) {
  const std::int32_t value = object.integer(name, fallback);
  if (value < least) object.refuse(name, "an integer >= " + std::to_string(least));
  return value;
}

float within(const JsonObject& object, const char* name, double fallback, double low, double high) {
  const double value = object.number(name, fallback);
  if (!(value >= low && value <= high)) {
    object.refuse(name, std::to_string(low) + ".." + std::to_string(high));
  }
  return static_cast<float>(value);
}

}  // namespace

SpeechSettings read_settings(const std::string& model_dir) {
  SpeechSettings settings;
  const std::string path = (std::filesystem::path(model_dir) / "higgs_rt.json").string();
  if (!std::filesystem::is_regular_file(path)) return settings;
  const JsonObject object = JsonObject::read(path);
  for (const std::string& key : object.value().keys()) {
    if (std::ranges::find(kFields, key) == std::end(kFields)) {
      object.refuse(key, "no such field");
    }
  }
  settings.max_turn_chars =
      at_least(object, "max_turn_chars", settings.max_turn_chars, kMinTurnChars);
  settings.context_turns = at_least(object, "context_turns", settings.context_turns, 0);
  settings.top_k = at_least(object, "top_k", settings.top_k, 0);
  settings.temperature = within(object, "temperature", 0.7, 0, 2);
  settings.top_p = within(object, "top_p", 0.95, 0.01, 1);
  settings.dialogue = object.text("dialogue", settings.dialogue);
  if (settings.dialogue != "tags" && settings.dialogue != "voices") {
    object.refuse("dialogue", "\"tags\" or \"voices\"");
  }
  return settings;
}

}  // namespace higgs_rt
