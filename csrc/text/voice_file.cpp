#include "text/voice_file.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>

#include "core/check.h"
#include "io/checkpoint.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/sha256.h"

namespace higgs_rt {

namespace {

constexpr std::string_view kSuffix = ".voice.safetensors";
constexpr std::size_t kMaxNameChars = 64;

// The strings beside the codes.
class Metadata {
 public:
  explicit Metadata(const SafetensorsFile& file)
      : path_(file.path()), header_(Json::parse(file.header(), file.path())) {}

  // Empty when there is none.
  std::string find(const char* name) const {
    const Json* all = header_.find("__metadata__");
    const Json* value = all == nullptr ? nullptr : all->find(name);
    return value == nullptr ? "" : value->string_value();
  }

  std::string text(const char* name) const {
    std::string value = find(name);
    check(!value.empty(), path_.c_str(), "expected the metadata field ", name, ", got none");
    return value;
  }

  void require(const char* name, const std::string& expected) const {
    const std::string value = find(name);
    check(value == expected, path_.c_str(), "expected ", name, " ", expected,
          " of a voice file, got ", value.empty() ? "none" : value);
  }

  std::int32_t positive(const char* name) const {
    const std::string value = text(name);
    std::int32_t number = 0;
    const char* end = value.data() + value.size();
    const auto read = std::from_chars(value.data(), end, number);
    check(read.ec == std::errc{} && read.ptr == end && number > 0, path_.c_str(),
          "expected a positive integer ", name, ", got ", value);
    return number;
  }

 private:
  const std::string path_;
  const Json header_;
};

template <class Stored>
std::vector<std::int32_t> copied(const char* data, std::size_t bytes) {
  std::vector<std::int32_t> out(bytes / sizeof(Stored));
  for (std::size_t i = 0; i < out.size(); ++i) {
    Stored value{};
    std::memcpy(&value, data + i * sizeof(Stored), sizeof(Stored));
    out[i] = value;
  }
  return out;
}

void read_codes(const SafetensorsFile& file, Voice& voice) {
  const char* where = file.path().c_str();
  const auto& entries = file.entries();
  check(entries.size() == 1 && entries.begin()->first == "codes", where,
        "expected one tensor, codes, got ", entries.size(),
        entries.empty() ? "" : ", the first is ", entries.empty() ? "" : entries.begin()->first);
  const SafetensorsFile::Entry& codes = entries.begin()->second;
  const bool shaped = codes.shape.size() == 2 && codes.shape[0] > 0 && codes.shape[1] > 0;
  check(shaped && (codes.dtype == "I32" || codes.dtype == "I16"), where,
        "expected codes I32 [num_codebooks, num_frames], got ", codes.dtype, " of rank ",
        codes.shape.size());
  const char* data = file.data() + codes.begin;
  const std::size_t bytes = codes.end - codes.begin;
  voice.codes =
      codes.dtype == "I32" ? copied<std::int32_t>(data, bytes) : copied<std::int16_t>(data, bytes);
  voice.num_codebooks = static_cast<std::int32_t>(codes.shape[0]);
  voice.num_frames = static_cast<std::int32_t>(codes.shape[1]);
  const std::int32_t least = *std::ranges::min_element(voice.codes);
  check(least >= 0, where, "expected codes >= 0, got ", least);
}

// A tensor under the first of two names, with its values as little-endian fp32; empty when the
// checkpoint has neither.
std::string table_bytes(const Checkpoint& checkpoint, const std::string& name,
                        const std::string& other, Shape& shape) {
  const std::string& stored = checkpoint.contains(name) ? name : other;
  if (!checkpoint.contains(stored)) return "";
  shape = checkpoint.shape(stored);
  const TensorView tensor = checkpoint.tensor(stored, shape);
  const auto size = static_cast<std::size_t>(tensor.size());
  std::string bytes(size * sizeof(float), '\0');
  for (std::size_t i = 0; i < size; ++i) {
    const float value =
        tensor.dtype == DType::kF32 ? tensor.as<float>()[i] : to_float(tensor.as<BF16>()[i]);
    std::memcpy(bytes.data() + i * sizeof(float), &value, sizeof(float));
  }
  return bytes;
}

std::string shape_text(std::size_t codebook, const Shape& shape) {
  std::string text = std::to_string(codebook) + "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

bool is_alphanumeric(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

void check_name(const std::string& name) {
  const bool good = !name.empty() && name.size() <= kMaxNameChars && is_alphanumeric(name[0]) &&
                    std::ranges::all_of(name, [](char c) {
                      return is_alphanumeric(c) || c == '.' || c == '_' || c == '-';
                    });
  check(good, "voice",
        "expected 1..64 of A-Z a-z 0-9 . _ - beginning with a letter or digit, got '",
        name.substr(0, kMaxNameChars), "'");
}

std::string user_folder() {
  const auto variable = [](const char* name) -> std::filesystem::path {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const auto chosen = variable("HIGGS_RT_VOICES"); !chosen.empty()) return chosen;
  const auto data = variable("XDG_DATA_HOME");
  return (data.empty() ? variable("HOME") / ".local" / "share" : data) / "higgs_rt" / "voices";
}

}  // namespace

Voice read_voice(const std::string& path) {
  const SafetensorsFile file(path);
  const Metadata metadata(file);
  metadata.require("format", "higgs_rt.voice");
  metadata.require("format_version", "1");
  Voice voice;
  voice.name = std::filesystem::path(path).filename().string();
  if (voice.name.ends_with(kSuffix)) voice.name.resize(voice.name.size() - kSuffix.size());
  read_codes(file, voice);
  voice.transcript = metadata.text("transcript");
  voice.codec = metadata.text("codec");
  voice.sample_rate = metadata.positive("sample_rate");
  voice.samples_per_frame = metadata.positive("samples_per_frame");
  metadata.text("created");
  metadata.text("source");
  return voice;
}

std::string codec_fingerprint(const std::string& directory) {
  const Checkpoint checkpoint(directory);
  Sha256 digest;
  std::size_t codebook = 0;
  for (;; ++codebook) {
    const std::string number = std::to_string(codebook);
    const std::string ours = "quantizer.quantizers." + number;
    const std::string original = "quantizer.vq.layers." + number;
    Shape shape;
    const std::string entries =
        table_bytes(checkpoint, ours + ".codebook.embed", original + "._codebook.embed", shape);
    if (entries.empty()) break;
    digest.add(shape_text(codebook, shape));
    digest.add(entries);
    const std::string weight = table_bytes(checkpoint, ours + ".project_out.weight",
                                           original + ".project_out.weight", shape);
    check(!weight.empty(), directory.c_str(), "expected tensor ", ours,
          ".project_out.weight, got none");
    digest.add(shape_text(codebook, shape));
    digest.add(weight);
  }
  check(codebook > 0, directory.c_str(), "expected quantiser tables, got none: not a codec");
  return digest.hex();
}

VoiceFolders::VoiceFolders(const std::string& chosen, const std::string& model_dir)
    : folders_{chosen.empty() ? user_folder() : chosen,
               (std::filesystem::path(model_dir) / "voices").string()} {}

std::vector<std::string> VoiceFolders::names() const {
  std::set<std::string> names;
  for (const std::string& folder : folders_) {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
      const std::string name = entry.path().filename().string();
      if (name.ends_with(kSuffix) && name.front() != '.') {
        names.insert(name.substr(0, name.size() - kSuffix.size()));
      }
    }
  }
  return {names.begin(), names.end()};
}

std::string VoiceFolders::path(const std::string& name) const {
  check_name(name);
  for (const std::string& folder : folders_) {
    const auto path = std::filesystem::path(folder) / (name + std::string(kSuffix));
    if (std::filesystem::is_regular_file(path)) return path.string();
  }
  std::string known;
  for (const std::string& one : names()) known += (known.empty() ? "" : ", ") + one;
  fail(ErrorCode::kNotFound, "voice", "expected one of the stored voices (",
       known.empty() ? "none" : known, "), got ", name);
}

}  // namespace higgs_rt
