// wgmma with 64 outputs and some numbers of rows (sm_90a): sum [64, rows] += weights [64, 16]
// rows [rows, 16]^T by four warps, not finished when it returns.
#pragma once

#include <cstdint>

namespace higgs_rt::prompt {

// clang-format off
#define HIGGS_NAMES_4 "%0, %1, %2, %3"
#define HIGGS_SUMS_4 "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
#define HIGGS_NAMES_8 HIGGS_NAMES_4 ", %4, %5, %6, %7"
#define HIGGS_SUMS_8 HIGGS_SUMS_4, "+f"(sum[4]), "+f"(sum[5]), "+f"(sum[6]), "+f"(sum[7])
#define HIGGS_NAMES_12 HIGGS_NAMES_8 ", %8, %9, %10, %11"
#define HIGGS_SUMS_12 HIGGS_SUMS_8, "+f"(sum[8]), "+f"(sum[9]), "+f"(sum[10]), "+f"(sum[11])
#define HIGGS_NAMES_16 HIGGS_NAMES_12 ", %12, %13, %14, %15"
#define HIGGS_SUMS_16 HIGGS_SUMS_12, "+f"(sum[12]), "+f"(sum[13]), "+f"(sum[14]), "+f"(sum[15])
#define HIGGS_NAMES_20 HIGGS_NAMES_16 ", %16, %17, %18, %19"
#define HIGGS_SUMS_20 HIGGS_SUMS_16, "+f"(sum[16]), "+f"(sum[17]), "+f"(sum[18]), "+f"(sum[19])
#define HIGGS_NAMES_24 HIGGS_NAMES_20 ", %20, %21, %22, %23"
#define HIGGS_SUMS_24 HIGGS_SUMS_20, "+f"(sum[20]), "+f"(sum[21]), "+f"(sum[22]), "+f"(sum[23])
#define HIGGS_NAMES_28 HIGGS_NAMES_24 ", %24, %25, %26, %27"
#define HIGGS_SUMS_28 HIGGS_SUMS_24, "+f"(sum[24]), "+f"(sum[25]), "+f"(sum[26]), "+f"(sum[27])
#define HIGGS_NAMES_32 HIGGS_NAMES_28 ", %28, %29, %30, %31"
#define HIGGS_SUMS_32 HIGGS_SUMS_28, "+f"(sum[28]), "+f"(sum[29]), "+f"(sum[30]), "+f"(sum[31])
#define HIGGS_NAMES_36 HIGGS_NAMES_32 ", %32, %33, %34, %35"
#define HIGGS_SUMS_36 HIGGS_SUMS_32, "+f"(sum[32]), "+f"(sum[33]), "+f"(sum[34]), "+f"(sum[35])
#define HIGGS_NAMES_40 HIGGS_NAMES_36 ", %36, %37, %38, %39"
#define HIGGS_SUMS_40 HIGGS_SUMS_36, "+f"(sum[36]), "+f"(sum[37]), "+f"(sum[38]), "+f"(sum[39])
#define HIGGS_NAMES_44 HIGGS_NAMES_40 ", %40, %41, %42, %43"
#define HIGGS_SUMS_44 HIGGS_SUMS_40, "+f"(sum[40]), "+f"(sum[41]), "+f"(sum[42]), "+f"(sum[43])
#define HIGGS_NAMES_48 HIGGS_NAMES_44 ", %44, %45, %46, %47"
#define HIGGS_SUMS_48 HIGGS_SUMS_44, "+f"(sum[44]), "+f"(sum[45]), "+f"(sum[46]), "+f"(sum[47])
#define HIGGS_NAMES_52 HIGGS_NAMES_48 ", %48, %49, %50, %51"
#define HIGGS_SUMS_52 HIGGS_SUMS_48, "+f"(sum[48]), "+f"(sum[49]), "+f"(sum[50]), "+f"(sum[51])
#define HIGGS_NAMES_56 HIGGS_NAMES_52 ", %52, %53, %54, %55"
#define HIGGS_SUMS_56 HIGGS_SUMS_52, "+f"(sum[52]), "+f"(sum[53]), "+f"(sum[54]), "+f"(sum[55])
#define HIGGS_NAMES_60 HIGGS_NAMES_56 ", %56, %57, %58, %59"
#define HIGGS_SUMS_60 HIGGS_SUMS_56, "+f"(sum[56]), "+f"(sum[57]), "+f"(sum[58]), "+f"(sum[59])
#define HIGGS_NAMES_64 HIGGS_NAMES_60 ", %60, %61, %62, %63"
#define HIGGS_SUMS_64 HIGGS_SUMS_60, "+f"(sum[60]), "+f"(sum[61]), "+f"(sum[62]), "+f"(sum[63])
#define HIGGS_NAMES_68 HIGGS_NAMES_64 ", %64, %65, %66, %67"
#define HIGGS_SUMS_68 HIGGS_SUMS_64, "+f"(sum[64]), "+f"(sum[65]), "+f"(sum[66]), "+f"(sum[67])
#define HIGGS_NAMES_72 HIGGS_NAMES_68 ", %68, %69, %70, %71"
#define HIGGS_SUMS_72 HIGGS_SUMS_68, "+f"(sum[68]), "+f"(sum[69]), "+f"(sum[70]), "+f"(sum[71])
#define HIGGS_NAMES_76 HIGGS_NAMES_72 ", %72, %73, %74, %75"
#define HIGGS_SUMS_76 HIGGS_SUMS_72, "+f"(sum[72]), "+f"(sum[73]), "+f"(sum[74]), "+f"(sum[75])
#define HIGGS_NAMES_80 HIGGS_NAMES_76 ", %76, %77, %78, %79"
#define HIGGS_SUMS_80 HIGGS_SUMS_76, "+f"(sum[76]), "+f"(sum[77]), "+f"(sum[78]), "+f"(sum[79])
#define HIGGS_NAMES_84 HIGGS_NAMES_80 ", %80, %81, %82, %83"
#define HIGGS_SUMS_84 HIGGS_SUMS_80, "+f"(sum[80]), "+f"(sum[81]), "+f"(sum[82]), "+f"(sum[83])
#define HIGGS_NAMES_88 HIGGS_NAMES_84 ", %84, %85, %86, %87"
#define HIGGS_SUMS_88 HIGGS_SUMS_84, "+f"(sum[84]), "+f"(sum[85]), "+f"(sum[86]), "+f"(sum[87])
#define HIGGS_NAMES_92 HIGGS_NAMES_88 ", %88, %89, %90, %91"
#define HIGGS_SUMS_92 HIGGS_SUMS_88, "+f"(sum[88]), "+f"(sum[89]), "+f"(sum[90]), "+f"(sum[91])
#define HIGGS_NAMES_96 HIGGS_NAMES_92 ", %92, %93, %94, %95"
#define HIGGS_SUMS_96 HIGGS_SUMS_92, "+f"(sum[92]), "+f"(sum[93]), "+f"(sum[94]), "+f"(sum[95])
#define HIGGS_NAMES_100 HIGGS_NAMES_96 ", %96, %97, %98, %99"
#define HIGGS_SUMS_100 HIGGS_SUMS_96, "+f"(sum[96]), "+f"(sum[97]), "+f"(sum[98]), "+f"(sum[99])
#define HIGGS_NAMES_104 HIGGS_NAMES_100 ", %100, %101, %102, %103"
#define HIGGS_SUMS_104 HIGGS_SUMS_100, "+f"(sum[100]), "+f"(sum[101]), "+f"(sum[102]), "+f"(sum[103])
#define HIGGS_NAMES_108 HIGGS_NAMES_104 ", %104, %105, %106, %107"
#define HIGGS_SUMS_108 HIGGS_SUMS_104, "+f"(sum[104]), "+f"(sum[105]), "+f"(sum[106]), "+f"(sum[107])
#define HIGGS_NAMES_112 HIGGS_NAMES_108 ", %108, %109, %110, %111"
#define HIGGS_SUMS_112 HIGGS_SUMS_108, "+f"(sum[108]), "+f"(sum[109]), "+f"(sum[110]), "+f"(sum[111])
#define HIGGS_NAMES_116 HIGGS_NAMES_112 ", %112, %113, %114, %115"
#define HIGGS_SUMS_116 HIGGS_SUMS_112, "+f"(sum[112]), "+f"(sum[113]), "+f"(sum[114]), "+f"(sum[115])
#define HIGGS_NAMES_120 HIGGS_NAMES_116 ", %116, %117, %118, %119"
#define HIGGS_SUMS_120 HIGGS_SUMS_116, "+f"(sum[116]), "+f"(sum[117]), "+f"(sum[118]), "+f"(sum[119])
#define HIGGS_NAMES_124 HIGGS_NAMES_120 ", %120, %121, %122, %123"
#define HIGGS_SUMS_124 HIGGS_SUMS_120, "+f"(sum[120]), "+f"(sum[121]), "+f"(sum[122]), "+f"(sum[123])
#define HIGGS_NAMES_128 HIGGS_NAMES_124 ", %124, %125, %126, %127"
#define HIGGS_SUMS_128 HIGGS_SUMS_124, "+f"(sum[124]), "+f"(sum[125]), "+f"(sum[126]), "+f"(sum[127])
#define HIGGS_MULTIPLY(rows, names, sums, a_name, b_name)                                    \
  __device__ inline void multiply(float (&sum)[rows / 2], std::uint64_t a, std::uint64_t b) { \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #rows "k16.f32.bf16.bf16 {" names "}, "  \
                 a_name ", " b_name ", 1, 1, 1, 0, 0;\n"                                     \
                 : sums                                                                       \
                 : "l"(a), "l"(b));                                                           \
  }
HIGGS_MULTIPLY(16, HIGGS_NAMES_8, HIGGS_SUMS_8, "%8", "%9")
HIGGS_MULTIPLY(32, HIGGS_NAMES_16, HIGGS_SUMS_16, "%16", "%17")
HIGGS_MULTIPLY(40, HIGGS_NAMES_20, HIGGS_SUMS_20, "%20", "%21")
HIGGS_MULTIPLY(48, HIGGS_NAMES_24, HIGGS_SUMS_24, "%24", "%25")
HIGGS_MULTIPLY(56, HIGGS_NAMES_28, HIGGS_SUMS_28, "%28", "%29")
HIGGS_MULTIPLY(64, HIGGS_NAMES_32, HIGGS_SUMS_32, "%32", "%33")
HIGGS_MULTIPLY(72, HIGGS_NAMES_36, HIGGS_SUMS_36, "%36", "%37")
HIGGS_MULTIPLY(80, HIGGS_NAMES_40, HIGGS_SUMS_40, "%40", "%41")
HIGGS_MULTIPLY(88, HIGGS_NAMES_44, HIGGS_SUMS_44, "%44", "%45")
HIGGS_MULTIPLY(96, HIGGS_NAMES_48, HIGGS_SUMS_48, "%48", "%49")
HIGGS_MULTIPLY(104, HIGGS_NAMES_52, HIGGS_SUMS_52, "%52", "%53")
HIGGS_MULTIPLY(112, HIGGS_NAMES_56, HIGGS_SUMS_56, "%56", "%57")
HIGGS_MULTIPLY(120, HIGGS_NAMES_60, HIGGS_SUMS_60, "%60", "%61")
HIGGS_MULTIPLY(128, HIGGS_NAMES_64, HIGGS_SUMS_64, "%64", "%65")
HIGGS_MULTIPLY(136, HIGGS_NAMES_68, HIGGS_SUMS_68, "%68", "%69")
HIGGS_MULTIPLY(144, HIGGS_NAMES_72, HIGGS_SUMS_72, "%72", "%73")
HIGGS_MULTIPLY(176, HIGGS_NAMES_88, HIGGS_SUMS_88, "%88", "%89")
HIGGS_MULTIPLY(208, HIGGS_NAMES_104, HIGGS_SUMS_104, "%104", "%105")
HIGGS_MULTIPLY(224, HIGGS_NAMES_112, HIGGS_SUMS_112, "%112", "%113")
HIGGS_MULTIPLY(240, HIGGS_NAMES_120, HIGGS_SUMS_120, "%120", "%121")
HIGGS_MULTIPLY(256, HIGGS_NAMES_128, HIGGS_SUMS_128, "%128", "%129")
#undef HIGGS_MULTIPLY
#undef HIGGS_NAMES_4
#undef HIGGS_SUMS_4
#undef HIGGS_NAMES_8
#undef HIGGS_SUMS_8
#undef HIGGS_NAMES_12
#undef HIGGS_SUMS_12
#undef HIGGS_NAMES_16
#undef HIGGS_SUMS_16
#undef HIGGS_NAMES_20
#undef HIGGS_SUMS_20
#undef HIGGS_NAMES_24
#undef HIGGS_SUMS_24
#undef HIGGS_NAMES_28
#undef HIGGS_SUMS_28
#undef HIGGS_NAMES_32
#undef HIGGS_SUMS_32
#undef HIGGS_NAMES_36
#undef HIGGS_SUMS_36
#undef HIGGS_NAMES_40
#undef HIGGS_SUMS_40
#undef HIGGS_NAMES_44
#undef HIGGS_SUMS_44
#undef HIGGS_NAMES_48
#undef HIGGS_SUMS_48
#undef HIGGS_NAMES_52
#undef HIGGS_SUMS_52
#undef HIGGS_NAMES_56
#undef HIGGS_SUMS_56
#undef HIGGS_NAMES_60
#undef HIGGS_SUMS_60
#undef HIGGS_NAMES_64
#undef HIGGS_SUMS_64
#undef HIGGS_NAMES_68
#undef HIGGS_SUMS_68
#undef HIGGS_NAMES_72
#undef HIGGS_SUMS_72
#undef HIGGS_NAMES_76
#undef HIGGS_SUMS_76
#undef HIGGS_NAMES_80
#undef HIGGS_SUMS_80
#undef HIGGS_NAMES_84
#undef HIGGS_SUMS_84
#undef HIGGS_NAMES_88
#undef HIGGS_SUMS_88
#undef HIGGS_NAMES_92
#undef HIGGS_SUMS_92
#undef HIGGS_NAMES_96
#undef HIGGS_SUMS_96
#undef HIGGS_NAMES_100
#undef HIGGS_SUMS_100
#undef HIGGS_NAMES_104
#undef HIGGS_SUMS_104
#undef HIGGS_NAMES_108
#undef HIGGS_SUMS_108
#undef HIGGS_NAMES_112
#undef HIGGS_SUMS_112
#undef HIGGS_NAMES_116
#undef HIGGS_SUMS_116
#undef HIGGS_NAMES_120
#undef HIGGS_SUMS_120
#undef HIGGS_NAMES_124
#undef HIGGS_SUMS_124
#undef HIGGS_NAMES_128
#undef HIGGS_SUMS_128
// clang-format on

}  // namespace higgs_rt::prompt
