// Linked in place of model/cuda when the build has no CUDA.
#include "core/check.h"
#include "model/cuda/half_codec.h"

namespace higgs_rt {

std::unique_ptr<CodecDecoder> make_half_codec_decoder(const CodecConfig&, const Checkpoint&,
                                                      Device& device) {
  fail(ErrorCode::kUnsupported, "codec", "half precision was asked for on ", device.name(),
       ", but this build has no CUDA (configure with -DHIGGS_RT_CUDA=ON)");
}

HalfCodecMemory half_codec_memory(Device&) { return {}; }

}  // namespace higgs_rt
