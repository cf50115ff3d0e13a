// How fast attention and the sampler are on the GPU. Both print a table and throw Error without a
// GPU; `device` is "cuda" or "cuda:N".
#pragma once

#include <string>

namespace higgs_rt::bench {

// The released shape in bf16, 28 layers with their own caches, back to back in one graph: decode
// steps by batch and positions, and prompts alone and beside decode rows.
void bench_cuda_attention(const std::string& device);

// 8 codebooks of 1026 ids, temperature 0.7, top-k 50, top-p 0.95 and RAS, back to back in one
// graph.
void bench_cuda_sampler(const std::string& device);

}  // namespace higgs_rt::bench
