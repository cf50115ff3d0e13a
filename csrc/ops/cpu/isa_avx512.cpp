// The kernels compiled for avx512 (compiler flags in ops/CMakeLists.txt).
#define HIGGS_ISA avx512
#include "ops/cpu/kernels/table.h"
