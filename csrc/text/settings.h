// higgs_rt.json: what a model says of itself beyond its checkpoint.
#pragma once

#include <string>

#include "higgs_rt/speaker.h"

namespace higgs_rt {

// Without a file the defaults. Throws Error that names the field, also for an unknown one.
SpeechSettings read_settings(const std::string& model_dir);

}  // namespace higgs_rt
