// What every codec decoder says about itself and asks of its input.
#pragma once

#include <cstdint>
#include <span>

#include "model/codec_config.h"
#include "model/codec_decoder.h"

namespace higgs_rt {

CodecSpec codec_spec(const CodecConfig& config);

// Throws kInvalidArgument unless codes [num_codebooks, num_frames] are in range, [begin, end) are
// frames of them and pcm has room for exactly their samples.
void check_codec_job(const CodecSpec& spec, const CodecDecoder::Job& job);

}  // namespace higgs_rt
