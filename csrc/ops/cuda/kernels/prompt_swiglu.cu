// Compiled for compute capability 9.0 with its own instructions (sm_90a) only; see CMakeLists.txt.
#include "ops/cuda/kernels/prompt_launch.cuh"

namespace higgs_rt {

cudaError_t launch_prompt_swiglu(const StreamWeight& weight, const PlainRows& x, __nv_bfloat16* out,
                                 cudaStream_t stream) {
  using namespace prompt;
  const GatedEnd end{out, weight.outputs / 2};
  if (x.rows <= 48) return launch_form<Form<48, 2, 1, 1>>(weight, x, end, stream);
  if (x.rows <= 80) return launch_form<Form<80, 2, 1, 1>>(weight, x, end, stream);
  if (x.rows <= 112) return launch_form<Form<112, 2, 1, 1>>(weight, x, end, stream);
  if (x.rows <= 144) return launch_form<Form<144, 2, 1, 1>>(weight, x, end, stream);
  return launch_cheapest<Form<176, 2, 2, 1>, Form<208, 2, 2, 1>, Form<224, 2, 2, 1>,
                         Form<240, 2, 2, 1>, Form<256, 2, 2, 1>, Form<272, 2, 2, 1>>(weight, x, end,
                                                                                     stream);
}

}  // namespace higgs_rt
