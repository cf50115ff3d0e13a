// Clocks of the one-kernel decode step (ops/cuda/kernels/persist_kernel.cuh), for benchmarks.
#pragma once

#include <cstdint>

namespace higgs_rt {

// What a block's first thread notes in each layer.
enum DecodeStamp : int {
  kStampQkv,  // the product begins: what the block needs of others may not be there yet
  kStampQkvInputs,
  kStampO,
  kStampOInputs,
  kStampGateUp,
  kStampGateUpInputs,
  kStampDown,
  kStampDownInputs,
  kStampHead,
  kStampHeadInputs,
  kStampAttention,
  kStampQueries,  // blocks with a share of the attention: the queries are there
  kStampPieces,   // and their pieces of the context are done
  kStampAttended,
  kDecodeStamps
};
constexpr int kDecodeBlocks = 128;

// Steps that are launched or recorded afterwards write clock64() to [kDecodeBlocks, layers,
// kDecodeStamps] of device memory; null: nothing.
void record_decode_stamps(std::int64_t* memory);

}  // namespace higgs_rt
