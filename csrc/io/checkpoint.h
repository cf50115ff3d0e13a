// The tensors of a model directory, over one or several safetensors files.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "io/safetensors.h"

namespace higgs_rt {

// Files: those named by model.safetensors.index.json, or model.safetensors, or else every
// *.safetensors. With an index, a file that it does not name is not read: released directories
// also carry a consolidated copy (specification 2.1).
class Checkpoint {
 public:
  // Throws kNotFound when there are no such files or a shard is missing, kInvalidArgument when a
  // file is malformed, or a tensor is in two files or not in the file that the index says.
  explicit Checkpoint(const std::string& directory);

  const std::string& directory() const { return directory_; }
  // In order of file name.
  const std::vector<std::unique_ptr<SafetensorsFile>>& files() const { return files_; }
  bool contains(const std::string& name) const { return places_.count(name) != 0; }
  std::vector<std::string> names() const;
  // "file.safetensors:tensor", for messages. The tensor must exist.
  std::string place(const std::string& name) const;
  // Throws kNotFound.
  const Shape& shape(const std::string& name) const;
  // A view of fp32 or bf16 data, read-only, valid while the checkpoint lives. Throws kNotFound when
  // there is no such tensor, kInvalidArgument when its shape or element type is another.
  TensorView tensor(const std::string& name, const Shape& shape) const;

 private:
  struct Place {
    const SafetensorsFile* file = nullptr;
    const SafetensorsFile::Entry* entry = nullptr;
  };
  const Place& at(const std::string& name) const;
  void open(const std::string& file_name);
  std::string directory_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Place> places_;
  // Aligned copies of tensors that a file with an odd header length misaligns.
  mutable std::map<std::string, std::unique_ptr<char[]>> aligned_;
};

}  // namespace higgs_rt
