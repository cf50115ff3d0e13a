#include "bench/trace_report.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <limits>
#include <map>

#include "bench/load.h"
#include "core/check.h"

namespace higgs_rt::bench {
namespace {

using Kind = TraceRecord::Kind;

constexpr std::size_t kKernelsShown = 14;
constexpr std::size_t kNameWidth = 72;
constexpr double kMicro = 1e-3;  // of a nanosecond

struct Span {
  std::uint64_t begin = std::numeric_limits<std::uint64_t>::max(), end = 0;
};

struct Launch {
  const TraceRecord* call;
  Span gpu;
};

struct Sum {
  std::int64_t count = 0;
  double total = 0, longest = 0;  // microseconds
  void add(const TraceRecord& one) {
    const double time = kMicro * static_cast<double>(one.end - one.begin);
    ++count;
    total += time;
    longest = std::max(longest, time);
  }
};

bool is_launch(const TraceRecord& one) {
  return one.kind == Kind::kCall && one.name == "cudaGraphLaunch";
}

bool is_wait(std::string_view call) {
  return call.find("Synchronize") != std::string_view::npos || call == "cudaMemcpy" ||
         call == "cudaMemset" || call == "cudaMalloc" || call == "cudaFree";
}

// `higgs_rt::decode<float>` of its mangled form, without arguments and namespace.
std::string readable(std::string_view mangled) {
  const std::string plain(mangled);
  char* text = plain.starts_with("_Z")
                   ? abi::__cxa_demangle(plain.c_str(), nullptr, nullptr, nullptr)
                   : nullptr;
  std::string name = text != nullptr ? text : plain;
  std::free(text);
  for (const std::string part :
       {"(anonymous namespace)::", "<unnamed>::", "higgs_rt::", "cuda::", "void "}) {
    for (std::size_t at; (at = name.find(part)) != std::string::npos;) name.erase(at, part.size());
  }
  int depth = 0;  // an argument list begins outside of template arguments
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (name[i] == '(' && depth == 0) name.resize(i);
  }
  return name.size() > kNameWidth ? name.substr(0, kNameWidth - 3) + "..." : name;
}

std::uint32_t step_thread(const TraceWindow& window) {
  std::map<std::uint32_t, int> launches;
  for (const TraceRecord& one : window.records) {
    if (is_launch(one) && window.has(one)) ++launches[one.place];
  }
  check(!launches.empty(), "--trace", "expected cudaGraphLaunch in the trace, got ",
        window.records.size(), " records without one");
  return std::max_element(launches.begin(), launches.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

// Stretches of the window in which the GPU worked on anything, in order.
std::vector<Span> busy_spans(const TraceWindow& window) {
  std::vector<Span> spans;
  for (const TraceRecord& one : window.records) {
    if (one.kind == Kind::kCall) continue;
    const std::uint64_t begin = std::max(one.begin, window.begin);
    const std::uint64_t end = std::min(one.end, window.end);
    if (begin >= end) continue;
    if (spans.empty() || begin > spans.back().end) {
      spans.push_back({begin, end});
    } else {
      spans.back().end = std::max(spans.back().end, end);
    }
  }
  return spans;
}

// The GPU's time on each graph that the step thread launched, in order of their calls.
std::vector<Launch> launched_graphs(const TraceWindow& window, std::uint32_t thread) {
  std::map<std::uint32_t, Span> spans;
  for (const TraceRecord& one : window.records) {
    if (one.kind == Kind::kCall) continue;
    Span& span = spans[one.correlation];
    span.begin = std::min(span.begin, one.begin);
    span.end = std::max(span.end, one.end);
  }
  std::vector<Launch> found;
  for (const TraceRecord& one : window.records) {
    if (!is_launch(one) || one.place != thread) continue;
    const auto span = spans.find(one.correlation);
    if (span != spans.end()) found.push_back({&one, span->second});
  }
  return found;
}

void find_busy(const TraceWindow& window, TraceSummary& found) {
  const std::vector<Span> busy = busy_spans(window);
  double total = 0;
  for (std::size_t i = 0; i < busy.size(); ++i) {
    total += static_cast<double>(busy[i].end - busy[i].begin);
    if (i == 0) continue;
    const auto idle = static_cast<double>(busy[i].begin - busy[i - 1].end);
    found.longest_idle = std::max(found.longest_idle, kMicro * idle);
  }
  found.busy = 1e-9 * total / window.seconds();
  found.timed_busy = std::min(1.0, window.device_seconds / window.seconds());
}

void find_waits(const TraceWindow& window, const std::vector<Launch>& graphs, TraceSummary& found) {
  for (const TraceRecord& call : window.records) {
    if (call.kind != Kind::kCall || call.place != found.step_thread || !is_wait(call.name)) {
      continue;
    }
    if (!window.has(call)) continue;
    ++found.waits;
    found.waits_ahead += std::any_of(graphs.begin(), graphs.end(), [&](const Launch& graph) {
      return graph.call->end <= call.begin && graph.gpu.end > call.end;
    });
  }
}

void print_calls(const TraceWindow& window, std::uint32_t thread) {
  std::map<std::pair<bool, std::string_view>, Sum> calls;
  for (const TraceRecord& one : window.records) {
    if (one.kind == Kind::kCall && window.has(one)) calls[{one.place != thread, one.name}].add(one);
  }
  const auto steps = static_cast<double>(window.steps);
  for (const bool other : {false, true}) {
    std::printf("  calls a step, %s:\n", other ? "all other threads" : "step thread");
    for (const auto& [key, sum] : calls) {
      if (key.first != other) continue;
      std::printf("    %-34s %7.2f, %9.1f us each, longest %9.1f us%s\n",
                  std::string(key.second).c_str(), static_cast<double>(sum.count) / steps,
                  sum.total / static_cast<double>(sum.count), sum.longest,
                  is_wait(key.second) ? "  (waits)" : "");
    }
  }
}

void print_kernels(const TraceWindow& window) {
  std::map<std::string, Sum> kernels;
  std::map<std::string_view, std::string> read;
  double all = 0;
  for (const TraceRecord& one : window.records) {
    if (one.kind == Kind::kCall || !window.has(one)) continue;
    auto [name, fresh] = read.try_emplace(one.name);
    if (fresh) name->second = readable(one.name);
    kernels[name->second].add(one);
    all += kMicro * static_cast<double>(one.end - one.begin);
  }
  std::vector<std::pair<std::string, Sum>> order(kernels.begin(), kernels.end());
  std::sort(order.begin(), order.end(),
            [](const auto& a, const auto& b) { return a.second.total > b.second.total; });
  std::printf("  GPU time by kernel, %zu kinds, %.2f ms a step (they may overlap):\n", order.size(),
              1e-3 * all / static_cast<double>(window.steps));
  for (std::size_t i = 0; i < std::min(order.size(), kKernelsShown); ++i) {
    const Sum& sum = order[i].second;
    std::printf("    %5.1f %%  %7.2f a step, %8.2f us each  %s\n", 100 * sum.total / all,
                static_cast<double>(sum.count) / static_cast<double>(window.steps),
                sum.total / static_cast<double>(sum.count), order[i].first.c_str());
  }
}

}  // namespace

TraceSummary summarise(const TraceWindow& window) {
  TraceSummary found;
  found.step_thread = step_thread(window);
  find_busy(window, found);
  const std::vector<Launch> graphs = launched_graphs(window, found.step_thread);
  for (std::size_t i = 1; i < graphs.size(); ++i) {
    if (!window.has(*graphs[i].call)) continue;
    const auto before = static_cast<double>(graphs[i - 1].gpu.end);
    found.gaps.push_back(kMicro * (static_cast<double>(graphs[i].gpu.begin) - before));
  }
  found.launches = static_cast<double>(found.gaps.size()) / static_cast<double>(window.steps);
  find_waits(window, graphs, found);
  return found;
}

void print_trace(const TraceWindow& window) {
  const TraceSummary found = summarise(window);
  const auto steps = static_cast<double>(window.steps);
  std::printf("\n%d streams: %lld steps in %.1f ms, %.3f ms each, %lld as one graph; %zu records\n",
              window.streams, static_cast<long long>(window.steps), 1e3 * window.seconds(),
              1e3 * window.seconds() / steps, static_cast<long long>(window.graph_steps),
              window.records.size());
  std::printf(
      "  GPU busy %.2f %% of the window, longest idle %.1f us; by the runtime's timing events "
      "%.2f %%\n",
      100 * found.busy, found.longest_idle, 100 * found.timed_busy);
  std::printf(
      "  %.2f graph launches a step; from one's end to the next one's begin p50 %.1f us, "
      "p99 %.1f us\n",
      found.launches, quantile(found.gaps, 0.5), quantile(found.gaps, 0.99));
  std::printf(
      "  waits of the step thread: %lld; when they returned, a graph launched before was "
      "still to run in %lld\n",
      static_cast<long long>(found.waits), static_cast<long long>(found.waits_ahead));
  print_calls(window, found.step_thread);
  print_kernels(window);
  std::fflush(stdout);
}

void write_trace(const std::string& path, const std::vector<TraceWindow>& windows) {
  std::ofstream file(path);
  file << std::fixed << std::setprecision(3) << "{\"traceEvents\":[";
  std::map<std::string_view, std::string> read;
  std::string separator = "\n";
  for (const TraceWindow& window : windows) {
    for (const bool host : {true, false}) {
      file << separator << R"({"ph":"M","name":"process_name","pid":)"
           << 2 * window.streams + (host ? 0 : 1) << R"(,"args":{"name":")" << window.streams
           << (host ? " streams: calls" : " streams: GPU") << "\"}}";
      separator = ",\n";
    }
    for (const TraceRecord& one : window.records) {
      auto [name, fresh] = read.try_emplace(one.name);
      if (fresh) name->second = readable(one.name);
      const double begin = static_cast<double>(one.begin) - static_cast<double>(window.begin);
      file << separator << R"({"ph":"X","name":")" << name->second << R"(","ts":)" << kMicro * begin
           << ",\"dur\":" << kMicro * static_cast<double>(one.end - one.begin)
           << ",\"pid\":" << 2 * window.streams + (one.kind == Kind::kCall ? 0 : 1)
           << ",\"tid\":" << one.place << R"(,"args":{"correlation":)" << one.correlation << "}}";
    }
  }
  file << "\n]}\n";
  file.close();
  check(file.good(), "--trace", "expected a file that can be written, got ", path);
}

}  // namespace higgs_rt::bench
