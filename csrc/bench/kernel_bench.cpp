// higgs_kernel_bench: how fast the operations are on this machine's CPUs, or on a GPU.
#include <cstdio>

#include "api/config_check.h"
#include "bench/command_line.h"
#include "bench/cuda_codec_bench.h"
#include "bench/cuda_decoder_bench.h"
#include "bench/cuda_linear_bench.h"
#include "bench/openblas.h"
#include "bench/report.h"
#include "core/check.h"

namespace {

constexpr const char* kUsage =
    "higgs_kernel_bench [--device D] [--threads N] [--layers N] [--seconds S] [--only TEXT] "
    "[--json FILE]\n"
    "  --device D   cpu (default), or cuda or cuda:N for the groups of the GPU\n"
    "  --threads N  threads of the pool; 0, the default: all CPUs of this process\n"
    "  --layers N   layers of the emulated 3B decode step (default 4; 0.2 GB each, the model: 28)\n"
    "  --seconds S  time of one measurement (default 0.25)\n"
    "  --only TEXT  only groups whose name contains TEXT (linear, codec, step ...)\n"
    "  --json FILE  also write the figures there; on a GPU those of \"cuda linear\", or the table "
    "of\n"
    "               \"cublas ranks\" as C++\n"
    "HIGGS_RT_CPU_ISA=generic|avx2|avx512|reference forces the kernels.\n";

using namespace higgs_rt::bench;

Options parse(int argc, char** argv) {
  Options options;
  CommandLine line("higgs_kernel_bench");
  line.text("--device", options.device);
  line.number("--threads", options.threads, 0, higgs_rt::kMaxThreads);
  line.number("--layers", options.layers, 1, 1000);
  line.seconds("--seconds", options.seconds);
  line.text("--only", options.filter);
  line.output_file("--json", options.json);
  line.parse(argc, argv);
  const Report report(options);
  higgs_rt::check(options.device == "cpu" || options.json.empty() ||
                      report.wants("cuda linear step") != report.wants("cublas ranks"),
                  "--json",
                  "expected --only \"cuda linear\" or --only \"cublas ranks\" beside it "
                  "on a GPU, got --only \"",
                  options.filter, "\"");
  return options;
}

int run(const Options& options) {
  Report report(options);
  if (options.device != "cpu") {
    if (report.wants("attention")) bench_cuda_attention(options.device);
    if (report.wants("sampler")) bench_cuda_sampler(options.device);
    bench_cuda_linear(report);
    bench_cuda_step(report);
    bench_cublas_ranks(report);
    bench_cuda_codec(report);
    return 0;
  }
  Machine machine(options.threads);
  set_openblas_threads(machine.pool.size());
  std::printf("instruction set %s, %d threads, OpenBLAS %s\n", higgs_rt::cpu_isa(),
              machine.pool.size(), have_openblas() ? "yes" : "no");
  bench_bandwidth(machine, report);
  bench_linear(machine, report);
  bench_conv(machine, report);
  bench_steps(machine, report);
  if (!options.json.empty()) report.write_json(higgs_rt::cpu_isa(), machine.pool.size());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_main(argc, argv, kUsage, 1, [&] { return run(parse(argc, argv)); });
}
