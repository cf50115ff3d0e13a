// A strict JSON reader (RFC 8259) for configuration files and safetensors headers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace higgs_rt {

// One immutable JSON value. Numbers without fraction and exponent that fit are kept as int64.
class Json {
 public:
  enum class Type { kNull, kBool, kInteger, kNumber, kString, kArray, kObject };

  // `where` (a file name) begins error messages, which give the byte offset. Refuses duplicate
  // keys, trailing bytes, and nesting deeper than 64. Throws Error.
  static Json parse(std::string_view text, const std::string& where);

  Type type() const { return type_; }
  bool is_null() const { return type_ == Type::kNull; }
  bool is_object() const { return type_ == Type::kObject; }
  bool is_array() const { return type_ == Type::kArray; }

  // Each is meaningful for its own type only; integer values also have number_value().
  bool bool_value() const { return integer_ != 0; }
  std::int64_t integer_value() const { return integer_; }
  double number_value() const { return number_; }
  const std::string& string_value() const { return string_; }

  // Array elements, or an object's values in the order of keys().
  const std::vector<Json>& items() const { return items_; }
  const std::vector<std::string>& keys() const { return keys_; }
  // The value of `key`; null pointer when there is none.
  const Json* find(std::string_view key) const;

  // The value as it would stand in an error message, cut to a few dozen characters.
  std::string describe() const;

 private:
  friend class JsonParser;
  Type type_ = Type::kNull;
  std::int64_t integer_ = 0;
  double number_ = 0;
  std::string string_;
  std::vector<std::string> keys_;
  std::vector<Json> items_;
};

}  // namespace higgs_rt
