#include "io/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "core/check.h"
#include "io/json_object.h"

namespace higgs_rt {

namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";

// Tensor name -> file name.
std::map<std::string, std::string> read_index(const std::string& path) {
  const JsonObject map = JsonObject::read(path).object("weight_map");
  std::map<std::string, std::string> out;
  for (const std::string& name : map.value().keys()) {
    const std::string file = map.text(name);
    if (file.find('/') != std::string::npos) map.refuse(name, "a file name without folders");
    out[name] = file;
  }
  return out;
}

std::set<std::string> loose_files(const std::string& directory) {
  std::set<std::string> out;
  for (const auto& file : fs::directory_iterator(directory)) {
    if (file.path().extension() == ".safetensors") out.insert(file.path().filename().string());
  }
  return out;
}

}  // namespace

Checkpoint::Checkpoint(const std::string& directory) : directory_(directory) {
  if (!fs::is_directory(directory)) {
    fail(ErrorCode::kNotFound, directory.c_str(), "expected a directory");
  }
  const fs::path root(directory);
  std::map<std::string, std::string> index;
  std::set<std::string> files;
  if (fs::exists(root / kIndexName)) {
    index = read_index((root / kIndexName).string());
    for (const auto& [name, file] : index) files.insert(file);
  } else if (fs::exists(root / kSingleName)) {
    files.insert(kSingleName);
  } else {
    files = loose_files(directory);
  }
  if (files.empty()) {
    fail(ErrorCode::kNotFound, directory.c_str(), "expected ", kSingleName, " or ", kIndexName,
         ", got no safetensors file");
  }
  for (const std::string& file : files) open(file);
  for (const auto& [name, file] : index) {
    check(contains(name) && fs::path(at(name).file->path()).filename() == file, kIndexName,
          "expected tensor ", name, " in ", file, ", got ",
          contains(name) ? "it in " + at(name).file->path() : "none there");
  }
}

void Checkpoint::open(const std::string& file_name) {
  files_.push_back(std::make_unique<SafetensorsFile>((fs::path(directory_) / file_name).string()));
  const SafetensorsFile& file = *files_.back();
  for (const auto& [name, entry] : file.entries()) {
    const bool inserted = places_.emplace(name, Place{&file, &entry}).second;
    check(inserted, file.path().c_str(), "expected each tensor once, got ", name, " also in ",
          places_.at(name).file->path());
  }
}

const Checkpoint::Place& Checkpoint::at(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) {
    fail(ErrorCode::kNotFound, directory_.c_str(), "expected tensor ", name, ", got none");
  }
  return found->second;
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> out;
  out.reserve(places_.size());
  for (const auto& [name, place] : places_) out.push_back(name);
  return out;
}

std::string Checkpoint::place(const std::string& name) const {
  return fs::path(at(name).file->path()).filename().string() + ":" + name;
}

const Shape& Checkpoint::shape(const std::string& name) const { return at(name).entry->shape; }

TensorView Checkpoint::tensor(const std::string& name, const Shape& shape) const {
  const Place& where = at(name);
  const SafetensorsFile::Entry& entry = *where.entry;
  check(entry.shape == shape, place(name).c_str(), "expected shape ", to_string(shape), ", got ",
        to_string(entry.shape));
  const bool bf16 = entry.dtype == "BF16";
  check(bf16 || entry.dtype == "F32", place(name).c_str(), "expected dtype F32 or BF16, got ",
        entry.dtype);
  const DType dtype = bf16 ? DType::kBF16 : DType::kF32;
  const char* data = where.file->data() + entry.begin;
  if (reinterpret_cast<std::uintptr_t>(data) % size_of(dtype) != 0) {
    auto& copy = aligned_[name];
    if (!copy) {
      copy = std::make_unique<char[]>(entry.end - entry.begin);
      std::memcpy(copy.get(), data, entry.end - entry.begin);
    }
    data = copy.get();
  }
  // Views of weights are read-only by agreement (core/tensor.h).
  return {const_cast<char*>(data), dtype, shape};
}

}  // namespace higgs_rt
