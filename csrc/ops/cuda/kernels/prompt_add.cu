// Compiled for compute capability 9.0 with its own instructions (sm_90a) only; see CMakeLists.txt.
#include "ops/cuda/kernels/prompt_launch.cuh"

namespace higgs_rt {

bool prompt_linear_runs() {
  int device = 0, major = 0, minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
         major == 9 && minor == 0 && tensor_maps_exist();
}

bool prompt_linear_takes(PromptEnd end, int rows, int outputs, int inputs, int dim) {
  if (outputs % 8 != 0 || inputs % 8 != 0 || dim % 128 != 0) return false;
  switch (end) {
    case PromptEnd::kAdd:
      return rows <= 144;
    case PromptEnd::kSwiglu:
      return outputs % 16 == 0 && rows <= 272;
    case PromptEnd::kQkv:
      return dim != 0 && rows <= 176;
  }
  return false;
}

cudaError_t launch_prompt_add(const StreamWeight& weight, const PlainRows& x, float* out,
                              cudaStream_t stream) {
  using namespace prompt;
  const AddEnd<1> end{out, weight.outputs};
  if (x.rows <= 80) return launch_form<Form<40, 1, 1, 2>>(weight, x, end, stream);
  if (x.rows <= 112) return launch_form<Form<56, 1, 1, 2>>(weight, x, end, stream);
  return launch_form<Form<72, 1, 1, 2>>(weight, x, end, stream);
}

}  // namespace higgs_rt
