// A folder of what is needed once.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>
#include <system_error>

namespace higgs_rt::bench {

// PARENT/NAME_PID, by default in the temporary directory; removed with what is in it, also where
// writing it has failed.
class ScratchFolder {
 public:
  explicit ScratchFolder(const std::string& name, const std::filesystem::path& parent = {})
      : path_((parent.empty() ? std::filesystem::temp_directory_path() : parent) /
              (name + "_" + std::to_string(::getpid()))) {}
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace higgs_rt::bench
