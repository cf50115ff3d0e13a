#include "io/safetensors.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/check.h"
#include "io/json.h"

namespace higgs_rt {

namespace {

constexpr std::size_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

// Bytes of one element; 0 for a type that the format does not have or that is not whole bytes.
std::size_t element_bytes(const std::string& dtype) {
  static const std::map<std::string, std::size_t> bytes = {
      {"F64", 8}, {"I64", 8}, {"U64", 8},  {"F32", 4},     {"I32", 4},
      {"U32", 4}, {"F16", 2}, {"BF16", 2}, {"I16", 2},     {"U16", 2},
      {"I8", 1},  {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  const auto found = bytes.find(dtype);
  return found == bytes.end() ? 0 : found->second;
}

std::vector<std::int64_t> non_negative(const Json* list) {
  std::vector<std::int64_t> out;
  if (list == nullptr || !list->is_array()) return {-1};
  for (const Json& item : list->items()) {
    const bool good = item.type() == Json::Type::kInteger && item.integer_value() >= 0;
    out.push_back(good ? item.integer_value() : -1);
  }
  return out;
}

bool has_negative(const std::vector<std::int64_t>& list) {
  return std::any_of(list.begin(), list.end(), [](std::int64_t value) { return value < 0; });
}

// Bytes that `shape` takes; the largest size_t when that overflows.
std::size_t bytes_of(const Shape& shape, std::size_t element) {
  constexpr std::size_t kOverflow = std::numeric_limits<std::size_t>::max();
  std::size_t bytes = element;
  for (const std::int64_t extent : shape) {
    const auto count = static_cast<std::size_t>(extent);
    if (count != 0 && bytes > kOverflow / count) return kOverflow;
    bytes *= count;
  }
  return bytes;
}

SafetensorsFile::Entry parse_entry(const Json& json, const std::string& where, std::size_t data,
                                   std::size_t file_size) {
  check(json.is_object(), where.c_str(), "expected an object, got ", json.describe());
  SafetensorsFile::Entry entry;
  const Json* dtype = json.find("dtype");
  if (dtype != nullptr) entry.dtype = dtype->string_value();
  const std::size_t element = element_bytes(entry.dtype);
  check(element != 0, where.c_str(), "expected a known dtype, got ",
        dtype == nullptr ? "none" : dtype->describe());
  const auto extents = non_negative(json.find("shape"));
  check(!has_negative(extents), where.c_str(), "expected a shape of integers >= 0");
  check(extents.size() <= Shape::kMaxRank, where.c_str(), "expected at most ", Shape::kMaxRank,
        " axes, got ", extents.size());
  for (const std::int64_t extent : extents) entry.shape.push_back(extent);
  const auto offsets = non_negative(json.find("data_offsets"));
  check(offsets.size() == 2 && !has_negative(offsets) && offsets[0] <= offsets[1], where.c_str(),
        "expected data_offsets [begin, end]");
  const auto length = static_cast<std::size_t>(offsets[1]);
  check(length <= file_size - data, where.c_str(), "expected data up to byte ", length,
        " after the header, got a file with only ", file_size - data, " (truncated?)");
  entry.begin = data + static_cast<std::size_t>(offsets[0]);
  entry.end = data + length;
  check(bytes_of(entry.shape, element) == entry.end - entry.begin, where.c_str(), "expected ",
        bytes_of(entry.shape, element), " bytes for ", entry.dtype, " ", to_string(entry.shape),
        ", got ", entry.end - entry.begin);
  return entry;
}

void check_contiguous(const std::map<std::string, SafetensorsFile::Entry>& entries,
                      const std::string& path, std::size_t data, std::size_t file_size) {
  std::vector<std::pair<std::size_t, const std::string*>> order;
  for (const auto& [name, entry] : entries) order.emplace_back(entry.begin, &name);
  std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    return std::make_pair(a.first, entries.at(*a.second).end) <
           std::make_pair(b.first, entries.at(*b.second).end);
  });
  std::size_t expected = data;
  for (const auto& [begin, name] : order) {
    check(begin == expected, (path + ":" + *name).c_str(), "expected data from byte ", expected,
          " of the file, got ", begin, begin < expected ? " (overlap)" : " (gap)");
    expected = entries.at(*name).end;
  }
  check(expected == file_size, path.c_str(), "expected a file of ", expected, " bytes, got ",
        file_size);
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path), file_(path) {
  check(file_.size() >= kHeaderBegin, path.c_str(), "expected a safetensors file, got ",
        file_.size(), " bytes (truncated?)");
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kHeaderBegin; ++i) {
    length |= std::uint64_t{static_cast<unsigned char>(file_.data()[i])} << (8 * i);
  }
  check(length <= kMaxHeaderBytes && length <= file_.size() - kHeaderBegin, path.c_str(),
        "expected a header of at most ",
        std::min<std::size_t>(kMaxHeaderBytes, file_.size() - kHeaderBegin), " bytes, got ", length,
        " (truncated, or no safetensors file?)");
  header_size_ = length;
  const std::size_t data = kHeaderBegin + length;
  const Json json = Json::parse(header(), path);
  check(json.is_object(), path.c_str(), "expected an object as header, got ", json.describe());
  for (std::size_t i = 0; i < json.keys().size(); ++i) {
    const std::string& name = json.keys()[i];
    if (name == "__metadata__") continue;
    entries_[name] = parse_entry(json.items()[i], path + ":" + name, data, file_.size());
  }
  check_contiguous(entries_, path, data, file_.size());
}

}  // namespace higgs_rt
