// What the benchmark asks the GPU itself.
#pragma once

#include <cstdint>

namespace higgs_rt::bench {

// Bytes a second, read and written counted, of a copy inside the memory of GPU `ordinal`; the best
// of several passes over 2 GiB. Throws kUnsupported in a build without CUDA.
double measure_copy_bandwidth(int ordinal);
// Memory in use on the GPU, by everybody, in bytes.
std::int64_t gpu_memory_used(int ordinal);

// Bytes of GPU memory that this process holds, whatever others do, as NVML counts them; -1 where it
// does not know (no NVML, or processes of another namespace).
std::int64_t own_gpu_memory(int ordinal);

}  // namespace higgs_rt::bench
