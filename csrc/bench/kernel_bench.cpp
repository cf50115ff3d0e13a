// higgs_kernel_bench: how fast the operations are on this machine's CPUs, or on a GPU.
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>

#include "bench/cuda_codec_bench.h"
#include "bench/cuda_decoder_bench.h"
#include "bench/cuda_linear_bench.h"
#include "bench/openblas.h"
#include "bench/report.h"

namespace {

constexpr const char* kUsage =
    "higgs_kernel_bench [--device D] [--threads N] [--layers N] [--seconds S] [--only TEXT] "
    "[--json FILE]\n"
    "  --device D   cpu (default), or cuda or cuda:N for the groups of the GPU\n"
    "  --threads N  threads of the pool; 0, the default: all CPUs of this process\n"
    "  --layers N   layers of the emulated 3B decode step (default 4; 0.2 GB each, the model: 28)\n"
    "  --seconds S  time of one measurement (default 0.25)\n"
    "  --only TEXT  only groups whose name contains TEXT (linear, codec, step ...)\n"
    "  --json FILE  also write the figures there\n"
    "HIGGS_RT_CPU_ISA=generic|avx2|avx512|reference forces the kernels.\n";

higgs_rt::bench::Options parse(int argc, char** argv) {
  higgs_rt::bench::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (i + 1 == argc) throw std::runtime_error(kUsage);
    const std::string value = argv[++i];
    if (name == "--device") {
      options.device = value;
    } else if (name == "--threads") {
      options.threads = std::stoi(value);
    } else if (name == "--layers") {
      options.layers = std::stoi(value);
    } else if (name == "--seconds") {
      options.seconds = std::stod(value);
    } else if (name == "--only") {
      options.filter = value;
    } else if (name == "--json") {
      options.json = value;
    } else {
      throw std::runtime_error(kUsage);
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const higgs_rt::bench::Options options = parse(argc, argv);
    if (options.device != "cpu") {
      const higgs_rt::bench::Report report(options);
      if (report.wants("attention")) higgs_rt::bench::bench_cuda_attention(options.device);
      if (report.wants("sampler")) higgs_rt::bench::bench_cuda_sampler(options.device);
      higgs_rt::bench::bench_cuda_linear(report);
      higgs_rt::bench::bench_cuda_step(report);
      higgs_rt::bench::bench_cublas_ranks(report);
      higgs_rt::bench::bench_cuda_codec(report);
      return 0;
    }
    higgs_rt::bench::Machine machine(options.threads);
    higgs_rt::bench::Report report(options);
    higgs_rt::bench::set_openblas_threads(machine.pool.size());
    std::printf("instruction set %s, %d threads, OpenBLAS %s\n", higgs_rt::cpu_isa(),
                machine.pool.size(), higgs_rt::bench::have_openblas() ? "yes" : "no");
    higgs_rt::bench::bench_bandwidth(machine, report);
    higgs_rt::bench::bench_linear(machine, report);
    higgs_rt::bench::bench_conv(machine, report);
    higgs_rt::bench::bench_steps(machine, report);
    if (!options.json.empty()) report.write_json(higgs_rt::cpu_isa(), machine.pool.size());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
