// The JSON that the service reads, one flat object of strings, numbers and booleans, and writes.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <variant>

namespace service {

using JsonValue = std::variant<std::nullptr_t, bool, double, std::string>;

// Throws std::invalid_argument that says what is wrong where. Nested values are refused.
std::map<std::string, JsonValue> parse_json_object(std::string_view text);

// Quoted and escaped; a byte that is not UTF-8 becomes U+FFFD.
std::string json_string(std::string_view text);

}  // namespace service
