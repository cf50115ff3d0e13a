// One file of the safetensors format: 8 bytes header length, JSON header, raw data.
#pragma once

#include <map>
#include <string>
#include <string_view>

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

  static constexpr std::size_t kHeaderBegin = 8;  // its length stands before it

  // Throws Error that names the file, and the tensor where one is at fault.
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return path_; }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  const char* data() const { return file_.data(); }
  std::size_t size() const { return file_.size(); }
  // The JSON header as it is stored.
  std::string_view header() const { return file_.text().substr(kHeaderBegin, header_size_); }

 private:
  std::string path_;
  MappedFile file_;
  std::size_t header_size_ = 0;
  std::map<std::string, Entry> entries_;
};

}  // namespace higgs_rt
