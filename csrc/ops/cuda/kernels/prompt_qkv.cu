// Compiled for compute capability 9.0 with its own instructions (sm_90a) only; see CMakeLists.txt.
#include "ops/cuda/kernels/prompt_launch.cuh"

namespace higgs_rt {

cudaError_t launch_prompt_qkv(const StreamWeight& weight, const PlainRows& x, const QkvOutput& out,
                              cudaStream_t stream) {
  using namespace prompt;
  const QkvEnd end{out};
  if (x.rows <= 80) return launch_form<Form<40, 2, 1, 2>>(weight, x, end, stream);
  if (x.rows <= 112) return launch_form<Form<56, 2, 1, 2>>(weight, x, end, stream);
  if (x.rows <= 144) return launch_form<Form<72, 2, 1, 2>>(weight, x, end, stream);
  if (x.rows <= 160) return launch_form<Form<80, 2, 2, 2>>(weight, x, end, stream);
  if (x.rows <= 192) return launch_form<Form<96, 2, 2, 2>>(weight, x, end, stream);
  if (x.rows <= 224) return launch_form<Form<112, 2, 2, 2>>(weight, x, end, stream);
  if (x.rows <= 240) return launch_form<Form<120, 2, 2, 1>>(weight, x, end, stream);
  if (x.rows <= 256) return launch_form<Form<128, 2, 2, 1>>(weight, x, end, stream);
  return launch_cheapest<Form<96, 2, 2, 1>, Form<144, 2, 2, 1>, Form<176, 2, 2, 1>,
                         Form<208, 2, 2, 1>, Form<224, 2, 2, 1>, Form<240, 2, 2, 1>>(weight, x, end,
                                                                                     stream);
}

}  // namespace higgs_rt
