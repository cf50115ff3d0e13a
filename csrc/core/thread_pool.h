// Threads for the CPU operations of one engine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace higgs_rt {

// The calling thread takes part, so a pool of size 1 starts no thread. Several threads may call at
// once: none waits for another, and those for whom no worker is left work alone. Work items must
// not throw.
class ThreadPool {
 public:
  // 0: as many as the process may run on.
  explicit ThreadPool(std::int32_t num_threads);
  ~ThreadPool();
  std::int32_t size() const;
  // A thread between the two is in the middle of many calls: others leave it its CPU also between
  // one and the next, and it gives `entered` with each. Without enter() a caller counts for the
  // time of the call only.
  void enter();
  void leave();
  // Calls body(begin, end) on disjoint ranges that cover [0, count), each a multiple of `grain`
  // long except the last. Returns when all have finished.
  void parallel_for(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t, std::int64_t)>& body,
                    bool entered = false);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace higgs_rt
