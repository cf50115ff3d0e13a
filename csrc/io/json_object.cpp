#include "io/json_object.h"

#include <limits>

#include "core/check.h"
#include "io/mapped_file.h"

namespace higgs_rt {

namespace {

std::string file_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

bool fits_int32(const Json& value) {
  return value.type() == Json::Type::kInteger &&
         value.integer_value() >= std::numeric_limits<std::int32_t>::min() &&
         value.integer_value() <= std::numeric_limits<std::int32_t>::max();
}

}  // namespace

JsonObject JsonObject::read(const std::string& path) {
  const MappedFile file(path);
  return {Json::parse(file.text(), path), file_name(path)};
}

JsonObject::JsonObject(Json value, std::string where)
    : value_(std::move(value)), where_(std::move(where)) {
  check(value_.is_object(), where_.c_str(), "expected an object, got ", value_.describe());
}

const Json* JsonObject::find(const std::string& name) const {
  const Json* value = value_.find(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

void JsonObject::refuse(const std::string& name, const std::string& expected) const {
  const Json* value = value_.find(name);
  fail(ErrorCode::kInvalidArgument, (where_ + ":" + name).c_str(), "expected ", expected, ", got ",
       value == nullptr ? "no such field" : value->describe());
}

std::int32_t JsonObject::integer(const std::string& name,
                                 std::optional<std::int32_t> fallback) const {
  const Json* value = find(name);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !fits_int32(*value)) refuse(name, "an integer");
  return static_cast<std::int32_t>(value->integer_value());
}

std::int32_t JsonObject::positive(const std::string& name,
                                  std::optional<std::int32_t> fallback) const {
  const std::int32_t value = integer(name, fallback);
  if (value < 1) refuse(name, "an integer >= 1");
  return value;
}

std::int64_t JsonObject::count(const std::string& name) const {
  const Json* value = find(name);
  if (value == nullptr || value->type() != Json::Type::kInteger || value->integer_value() < 0) {
    refuse(name, "an integer >= 0");
  }
  return value->integer_value();
}

double JsonObject::number(const std::string& name, std::optional<double> fallback) const {
  const Json* value = find(name);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr ||
      (value->type() != Json::Type::kInteger && value->type() != Json::Type::kNumber)) {
    refuse(name, "a number");
  }
  return value->number_value();
}

bool JsonObject::boolean(const std::string& name, std::optional<bool> fallback) const {
  const Json* value = find(name);
  if (value == nullptr && fallback) return *fallback;
  const bool number = value != nullptr && value->type() == Json::Type::kInteger &&
                      (value->integer_value() == 0 || value->integer_value() == 1);
  if (value == nullptr || (value->type() != Json::Type::kBool && !number)) {
    refuse(name, "true or false");
  }
  return value->bool_value();
}

std::string JsonObject::text(const std::string& name, std::optional<std::string> fallback) const {
  const Json* value = find(name);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || value->type() != Json::Type::kString) refuse(name, "a string");
  return value->string_value();
}

std::vector<std::int32_t> JsonObject::integers(const std::string& name) const {
  const Json* value = find(name);
  if (value == nullptr || !value->is_array()) refuse(name, "an array of integers");
  std::vector<std::int32_t> out;
  for (const Json& item : value->items()) {
    if (!fits_int32(item)) refuse(name, "an array of integers");
    out.push_back(static_cast<std::int32_t>(item.integer_value()));
  }
  return out;
}

JsonObject JsonObject::object(const std::string& name) const {
  const Json* value = find(name);
  if (value == nullptr || !value->is_object()) refuse(name, "an object");
  return {*value, where_ + ":" + name};
}

std::vector<JsonObject> JsonObject::objects(const std::string& name) const {
  const Json* value = find(name);
  if (value == nullptr || !value->is_array()) refuse(name, "an array of objects");
  std::vector<JsonObject> out;
  for (std::size_t i = 0; i < value->items().size(); ++i) {
    out.emplace_back(value->items()[i], where_ + ":" + name + ":" + std::to_string(i));
  }
  return out;
}

void JsonObject::require_flag(const std::string& name, bool expected) const {
  if (has(name) && boolean(name) != expected) refuse(name, expected ? "true" : "false");
}

void JsonObject::require_text(const std::string& name, const std::string& expected) const {
  if (has(name) && text(name) != expected) refuse(name, "\"" + expected + "\"");
}

}  // namespace higgs_rt
