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
    case PromptEnd::kAdd:  // many inputs: where the rows fill their tiles
      return inputs <= 4096 ? rows <= 224 || (rows > 256 && rows <= 720)
                            : rows <= 288 || (rows > 432 && rows <= 560);
    case PromptEnd::kSwiglu:
      return outputs % 16 == 0 && rows <= 2112;
    case PromptEnd::kQkv:
      return dim != 0 && rows <= 720;
  }
  return false;
}

namespace {

// Two tiles of rows, of 64 outputs, whose blocks share the weights.
cudaError_t launch_halves(const StreamWeight& weight, const PlainRows& x,
                          const prompt::AddEnd<64>& end, cudaStream_t stream) {
  using namespace prompt;
  switch ((x.rows + 15) / 16) {
    case 10:
      return launch_form<Form<80, 1, 1, 2>>(weight, x, end, stream);
    case 11:
      return launch_form<Form<88, 1, 1, 2>>(weight, x, end, stream);
    case 12:
      return launch_form<Form<96, 1, 1, 2>>(weight, x, end, stream);
    case 13:
      return launch_form<Form<104, 1, 1, 2>>(weight, x, end, stream);
    case 14:
      return launch_form<Form<112, 1, 1, 2>>(weight, x, end, stream);
    case 15:
      return launch_form<Form<120, 1, 1, 2>>(weight, x, end, stream);
    default:
      return launch_form<Form<128, 1, 1, 2>>(weight, x, end, stream);
  }
}

}  // namespace

cudaError_t launch_prompt_add(const StreamWeight& weight, const PlainRows& x, float* out,
                              cudaStream_t stream) {
  using namespace prompt;
  const AddEnd<48> end{out, weight.outputs};
  if (x.rows <= 80) return launch_form<Form<40, 1, 1, 2, 48>>(weight, x, end, stream);
  if (x.rows <= 112) return launch_form<Form<56, 1, 1, 2, 48>>(weight, x, end, stream);
  if (x.rows <= 144) return launch_form<Form<72, 1, 1, 2, 48>>(weight, x, end, stream);
  if (x.rows <= 256) return launch_halves(weight, x, AddEnd<64>{out, weight.outputs}, stream);
  if (x.rows <= 288) {
    return launch_form<Form<72, 2, 2, 2>>(weight, x, AddEnd<128>{out, weight.outputs}, stream);
  }
  return launch_cheapest<Form<80, 2, 2, 1>, Form<112, 2, 2, 1>, Form<144, 2, 2, 1>>(
      weight, x, AddPiecesEnd<2>{out, weight.outputs}, stream);
}

}  // namespace higgs_rt
