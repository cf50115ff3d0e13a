// A file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace higgs_rt {

// The file must not be shortened while it is mapped (a read beyond its end would kill the process).
class MappedFile {
 public:
  // Throws kNotFound when there is no such regular file, kResourceExhausted when mapping fails.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const char* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::string_view text() const { return {data_, size_}; }

 private:
  const char* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace higgs_rt
