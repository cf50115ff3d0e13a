#include "bench/gpu_trace.h"

#include <cupti.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string>

#include "core/check.h"

namespace higgs_rt::bench {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{8} << 20;
constexpr std::size_t kAlignment = 8;  // CUPTI's

using Kind = TraceRecord::Kind;

std::atomic<bool> keeping{false};
std::mutex mutex;                  // guards the rest
std::vector<TraceRecord> records;  // NOLINT: CUPTI's callbacks carry no pointer of ours
std::set<std::string, std::less<>> names;
std::atomic<std::size_t> dropped{0};

void check_cupti(CUptiResult result, const char* call) {
  if (result == CUPTI_SUCCESS) return;
  const char* text = nullptr;
  cuptiGetResultString(result, &text);
  fail(ErrorCode::kInternal, "--trace", "expected ", call, " to succeed, got CUPTI error ",
       static_cast<int>(result), ": ", text == nullptr ? "?" : text);
}

std::string_view keep_name(std::string_view name) {
  auto found = names.find(name);
  if (found == names.end()) found = names.emplace(name).first;
  return *found;
}

// cudaGraphLaunch of cudaGraphLaunch_v10000.
std::string_view call_name(CUpti_CallbackId id) {
  const char* name = nullptr;
  if (cuptiGetCallbackName(CUPTI_CB_DOMAIN_RUNTIME_API, id, &name) != CUPTI_SUCCESS) name = "?";
  const std::string_view all = name == nullptr ? "?" : name;
  return keep_name(all.substr(0, all.find("_v")));
}

template <class Activity>
void add(Kind kind, std::string_view name, const Activity& activity) {
  if (activity.start == 0 || activity.end == 0) return;  // without times: not complete
  records.push_back(
      {kind, name, activity.start, activity.end, activity.streamId, activity.correlationId});
}

// The oldest form of each record that CUDA 12 and 13 have; later ones only add fields at the end.
void parse(const CUpti_Activity* activity) {
  switch (activity->kind) {
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
      const auto& kernel = *reinterpret_cast<const CUpti_ActivityKernel9*>(activity);
      return add(Kind::kKernel, keep_name(kernel.name == nullptr ? "?" : kernel.name), kernel);
    }
    case CUPTI_ACTIVITY_KIND_MEMCPY:
      return add(Kind::kCopy, "memcpy", *reinterpret_cast<const CUpti_ActivityMemcpy5*>(activity));
    case CUPTI_ACTIVITY_KIND_MEMSET:
      return add(Kind::kCopy, "memset", *reinterpret_cast<const CUpti_ActivityMemset4*>(activity));
    case CUPTI_ACTIVITY_KIND_GRAPH_TRACE:
      return add(Kind::kGraph, "graph",
                 *reinterpret_cast<const CUpti_ActivityGraphTrace*>(activity));
    case CUPTI_ACTIVITY_KIND_RUNTIME: {
      const auto& call = *reinterpret_cast<const CUpti_ActivityAPI*>(activity);
      records.push_back({Kind::kCall, call_name(call.cbid), call.start, call.end, call.threadId,
                         call.correlationId});
      return;
    }
    default:
      return;
  }
}

void CUPTIAPI give_buffer(std::uint8_t** buffer, std::size_t* size, std::size_t* max_records) {
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(kAlignment, kBufferBytes));
  *size = *buffer == nullptr ? 0 : kBufferBytes;
  *max_records = 0;  // as many as fit
}

void CUPTIAPI take_buffer(CUcontext context, std::uint32_t stream, std::uint8_t* buffer,
                          std::size_t, std::size_t valid) {
  if (keeping && valid > 0) {
    const std::scoped_lock lock(mutex);
    CUpti_Activity* activity = nullptr;
    while (cuptiActivityGetNextRecord(buffer, valid, &activity) == CUPTI_SUCCESS) parse(activity);
    std::size_t lost = 0;
    if (cuptiActivityGetNumDroppedRecords(context, stream, &lost) == CUPTI_SUCCESS) {
      dropped += lost;
    }
  }
  std::free(buffer);
}

}  // namespace

void start_gpu_trace(bool whole_graphs) {
  check_cupti(cuptiActivityRegisterCallbacks(give_buffer, take_buffer),
              "cuptiActivityRegisterCallbacks");
  for (const auto& [kind, call] :
       {std::pair{CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, "cuptiActivityEnable(kernels)"},
        std::pair{CUPTI_ACTIVITY_KIND_MEMCPY, "cuptiActivityEnable(copies)"},
        std::pair{CUPTI_ACTIVITY_KIND_MEMSET, "cuptiActivityEnable(memsets)"},
        std::pair{CUPTI_ACTIVITY_KIND_RUNTIME, "cuptiActivityEnable(runtime calls)"}}) {
    check_cupti(cuptiActivityEnable(kind), call);
  }
  if (!whole_graphs) return;
  check_cupti(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_GRAPH_TRACE), "cuptiActivityEnable(graphs)");
}

std::uint64_t gpu_trace_now() {
  std::uint64_t now = 0;
  check_cupti(cuptiGetTimestamp(&now), "cuptiGetTimestamp");
  return now;
}

void keep_gpu_trace() {
  check_cupti(cuptiActivityFlushAll(0), "cuptiActivityFlushAll");
  keeping = true;
}

std::vector<TraceRecord> take_gpu_trace(std::uint64_t begin, std::uint64_t end) {
  check_cupti(cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED), "cuptiActivityFlushAll");
  keeping = false;
  check(dropped == 0, "--trace", "expected every record, got ", dropped.load(),
        " dropped by CUPTI");
  const std::scoped_lock lock(mutex);
  std::erase_if(records,
                [&](const TraceRecord& one) { return one.end <= begin || one.begin >= end; });
  std::sort(records.begin(), records.end(),
            [](const TraceRecord& a, const TraceRecord& b) { return a.begin < b.begin; });
  return std::exchange(records, {});
}

}  // namespace higgs_rt::bench
