// The kernels compiled for generic (compiler flags in ops/CMakeLists.txt).
#define HIGGS_ISA generic
#include "ops/cpu/kernels/table.h"
