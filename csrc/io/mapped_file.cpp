#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"

namespace higgs_rt {

MappedFile::MappedFile(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    fail(ErrorCode::kNotFound, path.c_str(),
         "expected a readable file, got: ", std::strerror(errno));
  }
  struct stat status{};
  const bool regular = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  size_ = regular ? static_cast<std::size_t>(status.st_size) : 0;
  void* mapped =
      size_ == 0 ? nullptr : ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor, 0);
  const int problem = errno;
  ::close(descriptor);
  if (!regular) fail(ErrorCode::kNotFound, path.c_str(), "expected a regular file");
  if (mapped == MAP_FAILED) {
    fail(ErrorCode::kResourceExhausted, path.c_str(), "could not map ", size_,
         " bytes: ", std::strerror(problem));
  }
  data_ = static_cast<const char*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<char*>(data_), size_);
}

}  // namespace higgs_rt
