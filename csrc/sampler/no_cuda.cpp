// Linked in place of sampler/cuda when the build has no CUDA.
#include "core/check.h"
#include "sampler/sampler.h"

namespace higgs_rt {

std::unique_ptr<Sampler> make_cuda_sampler(const SamplerSpec&, Device& device) {
  fail(ErrorCode::kUnsupported, "sampler", "a CUDA sampler on ", device.name(),
       " was asked for, but this build has no CUDA (configure with -DHIGGS_RT_CUDA=ON)");
}

}  // namespace higgs_rt
