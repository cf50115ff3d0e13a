// A copy of a golden checkpoint with something wrong in it.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>

#include "io/safetensors.h"
#include "io/temporary_directory.h"

namespace higgs_rt::testing {

struct StoredTensor {
  std::string dtype;
  Shape shape;
  std::string bytes;
};
using StoredTensors = std::map<std::string, StoredTensor>;

inline std::string read_text(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// All tensors of a directory's safetensors files.
inline StoredTensors read_tensors(const std::string& directory) {
  StoredTensors tensors;
  for (const auto& file : std::filesystem::directory_iterator(directory)) {
    if (file.path().extension() != ".safetensors") continue;
    const SafetensorsFile source(file.path().string());
    for (const auto& [name, entry] : source.entries()) {
      tensors[name] = {entry.dtype, entry.shape,
                       std::string(source.data() + entry.begin, entry.end - entry.begin)};
    }
  }
  return tensors;
}

inline void write_tensors(const TemporaryDirectory& directory, const StoredTensors& tensors) {
  std::ostringstream header;
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header << (data.empty() ? '{' : ',') << '"' << name << R"(":{"dtype":")" << tensor.dtype
           << R"(","shape":)" << to_string(tensor.shape) << R"(,"data_offsets":[)" << data.size()
           << ',' << data.size() + tensor.bytes.size() << "]}";
    data += tensor.bytes;
  }
  header << '}';
  directory.write("model.safetensors", safetensors_bytes(header.str(), data));
}

// Replaces the first `from` in a text, which must have it.
inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  if (at == std::string::npos) throw std::runtime_error("no \"" + from + "\" to replace");
  return text.replace(at, from.size(), to);
}

}  // namespace higgs_rt::testing
