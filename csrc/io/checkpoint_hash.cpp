#include "io/checkpoint_hash.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

namespace higgs_rt {

namespace {

constexpr std::size_t kPiece = 64;  // bytes

class Fnv1a {
 public:
  void add(std::string_view bytes) {
    for (const char byte : bytes) {
      state_ = (state_ ^ static_cast<unsigned char>(byte)) * 1099511628211u;
    }
  }
  void add_integer(std::uint64_t value) {  // 8 bytes, the least significant first
    std::array<char, 8> bytes{};
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<char>(value >> (8 * i) & 0xff);
    }
    add({bytes.data(), bytes.size()});
  }
  std::string text() const {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string out(16, '0');
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = kDigits[state_ >> (60 - 4 * i) & 0xf];
    return out;
  }

 private:
  std::uint64_t state_ = 14695981039346656037u;
};

void add_file(Fnv1a& hash, const SafetensorsFile& file) {
  hash.add(std::filesystem::path(file.path()).filename().string());
  hash.add({"\0", 1});
  hash.add_integer(file.size());
  hash.add(file.header());
  std::vector<std::pair<std::size_t, std::string>> order;
  for (const auto& [name, entry] : file.entries()) order.emplace_back(entry.begin, name);
  std::sort(order.begin(), order.end());
  for (const auto& [begin, name] : order) {
    const std::size_t size = file.entries().at(name).end - begin;
    const std::string_view data(file.data() + begin, size);
    hash.add(data.substr(0, kPiece));
    hash.add(data.substr(size / 2, kPiece));
    hash.add(data.substr(size - std::min(size, kPiece)));
  }
}

}  // namespace

std::string checkpoint_hash(const Checkpoint& checkpoint) {
  Fnv1a hash;
  const auto config = std::filesystem::path(checkpoint.directory()) / "config.json";
  hash.add(MappedFile(config.string()).text());
  for (const auto& file : checkpoint.files()) add_file(hash, *file);
  return "fnv1a64:" + hash.text();
}

}  // namespace higgs_rt
