// One file of the safetensors format: 8 bytes header length, JSON header, raw data.
#pragma once

#include <map>
#include <string>

#include "core/tensor.h"
#include "io/mapped_file.h"

namespace higgs_rt {

// A validated, memory-mapped file. Every entry lies within the file, has as many bytes as its shape
// and element type say, and entries follow one another without gap or overlap.
class SafetensorsFile {
 public:
  struct Entry {
    std::string dtype;  // as written in the file: "F32", "BF16", "I64", …
    Shape shape;
    std::size_t begin = 0;  // bytes from the start of the file
    std::size_t end = 0;
  };

  // Throws Error that names the file, and the tensor where one is at fault.
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return path_; }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  const char* data() const { return file_.data(); }

 private:
  std::string path_;
  MappedFile file_;
  std::map<std::string, Entry> entries_;
};

}  // namespace higgs_rt
