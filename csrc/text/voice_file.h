// Voice files (docs/voices.md), and the identity of the codec that their codes belong to.
#pragma once

#include <string>
#include <vector>

#include "higgs_rt/speaker.h"

namespace higgs_rt {

// Throws Error that names the file and the field at fault.
Voice read_voice(const std::string& path);

// SHA-256 (hex) of a codec's quantiser tables as fp32, in order of codebook: codecs with equal
// tables understand each other's codes. Throws Error for a codec without such tables.
std::string codec_fingerprint(const std::string& directory);

// Folders of voice files; a voice hides those of its name in later folders.
class VoiceFolders {
 public:
  // `chosen` empty: $HIGGS_RT_VOICES, or the user's folder for data.
  VoiceFolders(const std::string& chosen, const std::string& model_dir);

  std::vector<std::string> names() const;  // sorted
  // The file of a voice. kNotFound that lists the names there are; kInvalidArgument for a name that
  // no voice can have.
  std::string path(const std::string& name) const;

 private:
  std::vector<std::string> folders_;
};

}  // namespace higgs_rt
