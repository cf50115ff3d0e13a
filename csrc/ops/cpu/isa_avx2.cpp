// The kernels compiled for avx2 (compiler flags in ops/CMakeLists.txt).
#define HIGGS_ISA avx2
#include "ops/cpu/kernels/table.h"
