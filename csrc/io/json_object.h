// Typed access to the fields of a configuration file, with errors that name file and field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"

namespace higgs_rt {

// A JSON object and the place that error messages begin with, e.g. "config.json:text_config".
// Getters without a fallback require the field; with one, an absent or null field gives it.
// Everything throws Error [where:field].
class JsonObject {
 public:
  // Reads and parses a file whose top value is an object. kNotFound when there is no such file.
  static JsonObject read(const std::string& path);
  JsonObject(Json value, std::string where);

  const std::string& where() const { return where_; }
  // Present and not null.
  bool has(const std::string& name) const { return find(name) != nullptr; }
  const Json& value() const { return value_; }

  // In [1, 2^31).
  std::int32_t positive(const std::string& name,
                        std::optional<std::int32_t> fallback = std::nullopt) const;
  // Any integer in int32.
  std::int32_t integer(const std::string& name,
                       std::optional<std::int32_t> fallback = std::nullopt) const;
  // In [0, 2^63).
  std::int64_t count(const std::string& name) const;
  double number(const std::string& name, std::optional<double> fallback = std::nullopt) const;
  // true, false, or the integers 1 and 0 that some published files have instead.
  bool boolean(const std::string& name, std::optional<bool> fallback = std::nullopt) const;
  std::string text(const std::string& name,
                   std::optional<std::string> fallback = std::nullopt) const;
  std::vector<std::int32_t> integers(const std::string& name) const;
  JsonObject object(const std::string& name) const;
  // The objects of an array; messages say [where:name:index:field].
  std::vector<JsonObject> objects(const std::string& name) const;

  [[noreturn]] void refuse(const std::string& name, const std::string& expected) const;
  // Refuses a field that has another value; an absent one passes.
  void require_flag(const std::string& name, bool expected) const;
  void require_text(const std::string& name, const std::string& expected) const;

 private:
  const Json* find(const std::string& name) const;
  Json value_;
  std::string where_;
};

}  // namespace higgs_rt
