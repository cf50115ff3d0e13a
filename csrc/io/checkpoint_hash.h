// A short name for the content of a checkpoint, to tell which one a plan was built from.
#pragma once

#include <string>

#include "io/checkpoint.h"

namespace higgs_rt {

// "fnv1a64:" and 16 hex digits over config.json and, of each safetensors file, its name, size,
// header and up to three pieces of 64 bytes of every tensor (docs/tensorrt.md). A sample that takes
// milliseconds: it tells fine-tuned checkpoints apart and is no proof against deliberate change.
// Throws kNotFound when there is no config.json.
std::string checkpoint_hash(const Checkpoint& checkpoint);

}  // namespace higgs_rt
