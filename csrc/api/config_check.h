// What a RuntimeConfig and a Request must satisfy before anything is loaded or queued.
#pragma once

#include "executor/executor.h"
#include "higgs_rt/types.h"

namespace higgs_rt {

// Limits of chunk sizes, buffered chunks, threads and requests at once; kMaxQueue is the
// executor's.
inline constexpr std::int32_t kMaxChunkFrames = 4096;
inline constexpr std::int32_t kMaxBufferedChunks = 1 << 20;
inline constexpr std::int32_t kMaxThreads = 1024;
inline constexpr std::int32_t kMaxBatch = 4096;
inline constexpr std::int32_t kMaxStepTokens = 1 << 18;  // grids of kernels count rows

// Throws kInvalidArgument that names field, value and limit. Files are not looked at.
void validate(const RuntimeConfig& config);
// The same with a number in place of max_step_tokens 0.
RuntimeConfig with_defaults(RuntimeConfig config);

// The part of a request that the executor does not look at: chunk sizes, output and the shapes of
// prompt segments. Throws kInvalidArgument that names field, value and limit.
void validate_output(const Request& request, const ModelInfo& info);
void validate_axes(const std::vector<PromptSegment>& prompt, const ModelInfo& info);

}  // namespace higgs_rt
