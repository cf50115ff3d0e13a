// Marks functions that are compiled for the host and, by nvcc, for the GPU as well.
#pragma once

#if defined(__CUDACC__)
#define HIGGS_HOST_DEVICE __host__ __device__
#else
#define HIGGS_HOST_DEVICE
#endif
