// Memory bandwidth, and matrix products at the shapes of the released 3B model.
#include <atomic>

#include "bench/openblas.h"
#include "bench/report.h"

namespace higgs_rt::bench {

namespace {

struct LinearShape {
  const char* name;
  std::int64_t outputs, inputs;
};

const LinearShape kShapes[] = {{"q, o 3072x3072", 3072, 3072},
                               {"k, v 1024x3072", 1024, 3072},
                               {"gate, up 8192x3072", 8192, 3072},
                               {"down 3072x8192", 3072, 8192},
                               {"head 8208x3072", 8208, 3072}};

// Larger than any cache, so that walking over it reads main memory.
constexpr std::int64_t kPoolBytes = std::int64_t{512} << 20;

Timing time_linear(Machine& machine, const Report& report, const TensorView& pool,
                   const LinearShape& shape, std::int64_t rows) {
  const Tensor x = machine.random({rows, shape.inputs}),
               out = machine.random({rows, shape.outputs});
  const std::int64_t size = shape.outputs * shape.inputs, copies = pool.size() / size;
  std::int64_t next = 0;
  return measure(report.options().seconds, [&] {
    TensorView weight = pool.slice(next * size, size);
    weight.shape = {shape.outputs, shape.inputs};
    next = (next + 1) % copies;
    machine.ops->linear(x, weight, out);
  });
}

double time_openblas(Machine& machine, const Report& report, const TensorView& pool,
                     const LinearShape& shape, std::int64_t rows) {
  const Tensor x = machine.random({rows, shape.inputs}),
               out = machine.random({rows, shape.outputs});
  const std::int64_t size = shape.outputs * shape.inputs, copies = pool.size() / size;
  std::int64_t next = 0;
  return measure(report.options().seconds,
                 [&] {
                   const float* weight = pool.as<float>() + next * size;
                   next = (next + 1) % copies;
                   openblas_sgemm(true, rows, shape.outputs, shape.inputs, x.as<float>(),
                                  shape.inputs, weight, shape.inputs, 0.0f, out.as<float>(),
                                  shape.outputs);
                 })
      .best;
}

void bench_dtype(Machine& machine, Report& report, DType dtype, const char* group) {
  if (!report.wants(group)) return;
  const auto element = static_cast<std::int64_t>(size_of(dtype));
  const Tensor pool = machine.random({kPoolBytes / element}, dtype);
  for (const LinearShape& shape : kShapes) {
    for (const std::int64_t rows : {1, 4, 8, 32, 128, 256}) {
      const Timing timing = time_linear(machine, report, pool, shape, rows);
      const double size = static_cast<double>(shape.outputs * shape.inputs);
      Row row{group, shape.name, rows, timing.best, timing.median};
      row.bytes = size * static_cast<double>(element);
      row.flops = 2.0 * size * static_cast<double>(rows);
      if (dtype == DType::kF32 && have_openblas()) {
        row.openblas_microseconds = time_openblas(machine, report, pool, shape, rows);
      }
      report.add(row);
    }
  }
}

}  // namespace

void bench_bandwidth(Machine& machine, Report& report) {
  typedef std::uint64_t Lanes __attribute__((vector_size(16)));
  constexpr std::int64_t kStreams = 8;  // one stream alone does not fill the memory channels
  constexpr std::int64_t kStreamLanes = 1024;
  const Tensor memory = machine.random({kPoolBytes / 4});
  const auto* lanes = static_cast<const Lanes*>(memory.view().data);
  const std::int64_t block = kStreams * kStreamLanes;
  // Short pieces, because a repetition counts only when no other process ran in it.
  constexpr std::int64_t kPieces = 16;
  const std::int64_t blocks =
      kPoolBytes / static_cast<std::int64_t>(sizeof(Lanes)) / block / kPieces;
  std::int64_t piece = 0;
  std::atomic<std::uint64_t> sink{0};
  const Timing timing = measure(4 * report.options().seconds, [&] {
    piece = (piece + 1) % kPieces;
    machine.pool.parallel_for(blocks, 4, [&](std::int64_t begin, std::int64_t end) {
      Lanes all[kStreams] = {};
      for (std::int64_t b = piece * blocks + begin; b < piece * blocks + end; ++b) {
        for (std::int64_t i = 0; i < kStreamLanes; ++i) {
#pragma GCC unroll 8
          for (std::int64_t s = 0; s < kStreams; ++s) {
            all[s] ^= lanes[b * block + s * kStreamLanes + i];
          }
        }
      }
      for (const Lanes& one : all) sink.fetch_xor(one[0] ^ one[1]);
    });
  });
  report.set_bandwidth(static_cast<double>(kPoolBytes / kPieces) / timing.best * 1e6);
  Row row{"bandwidth", "read 32 MiB of 512", 1, timing.best, timing.median};
  row.bytes = static_cast<double>(kPoolBytes / kPieces);
  report.add(row);
}

void bench_linear(Machine& machine, Report& report) {
  bench_dtype(machine, report, DType::kBF16, "linear bf16");
  bench_dtype(machine, report, DType::kF32, "linear f32");
}

}  // namespace higgs_rt::bench
