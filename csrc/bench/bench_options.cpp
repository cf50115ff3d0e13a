#include "bench/bench_options.h"

#include <map>
#include <sstream>
#include <string_view>

#include "core/check.h"

namespace higgs_rt::bench {

const char* const kUsage =
    R"(usage: higgs_bench (--model DIR | --shape higgs-v2-3b|demo) [options]
  --codec-dir DIR       codec of --model (default: DIR/codec)
  --no-codec            language model and sampler alone
  --device cpu|cuda:N   (default cpu)
  --concurrency LIST    requests at once, e.g. 1,4,8 (default 1,8)
  --arrivals closed|poisson:RATE
                        closed (default): every client sends its next request when its last one has
                        ended. poisson: RATE requests a second, whatever runs
  --rounds N            requests of each client, or of each of LIST with poisson (default 1);
                        8 and more for a steady rate (below)
  --prompt-tokens N     (default 64)
  --frames LIST         of each request, 25 a second; with several requests a quarter more or less
                        (default 100); every number is run with every concurrency
  --step-tokens N       rows of one step (default the runtime's)
  --held-steps N        steps that new requests may wait for others (default the runtime's)
  --threads N           CPU threads (default all)
  --dtype bf16|f32      of the random weights of --shape (default bf16)
  --scratch DIR         where --shape writes its model (default the temporary directory)
  --keep DIR            write it there, unless there is one, and leave it
  --json FILE           also write the figures there
  --trace FILE          instead: record calls and kernels of steady decoding (CUPTI), print what
                        they show, write them as a Chrome trace
  --trace-graphs        with --trace: a whole graph as one record, which disturbs less
"steady" is the rate of a server whose N clients are all busy: from the moment when every client has
ended its first request (those are sent at once) to the moment when the first client finds no
request left (so as many requests begin as end), seconds of audio divided by seconds. Every chunk is
spread evenly over the time since the same request's chunk before it (the first: since it was sent),
and counts with its share in that time. "-": there is no such time. With poisson it is the middle
half of the run. "burst" is the first audio of the first request of each client, which are sent all
at once, "later" that of the others, which are sent to a server that is busy with the other clients;
p50 and p95 beside them are of all requests.
)";

namespace {

std::int32_t to_int(const std::string& text, const std::string& option) {
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  check(!text.empty() && *end == '\0' && value >= 0 && value <= 1 << 24, option.c_str(),
        "expected a number in 0..2^24, got ", text);
  return static_cast<std::int32_t>(value);
}

std::vector<std::int32_t> to_list(const std::string& text, const std::string& option) {
  std::vector<std::int32_t> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) out.push_back(to_int(part, option));
  check(!out.empty() && *std::min_element(out.begin(), out.end()) >= 1, option.c_str(),
        "expected numbers above 0, e.g. 1,4,8, got ", text);
  return out;
}

double to_rate(const std::string& text) {
  constexpr std::string_view kPoisson = "poisson:";
  if (text == "closed") return 0;
  char* end = nullptr;
  const bool poisson = text.starts_with(kPoisson);
  const double rate = poisson ? std::strtod(text.c_str() + kPoisson.size(), &end) : 0;
  check(poisson && *end == '\0' && rate > 0, "--arrivals",
        "expected closed or poisson:RATE with a rate above 0, got ", text);
  return rate;
}

}  // namespace

Options parse(int argc, char** argv) {
  Options options;
  const std::map<std::string, std::string*> texts = {
      {"--model", &options.model},   {"--shape", &options.shape},
      {"--device", &options.device}, {"--codec-dir", &options.codec_dir},
      {"--dtype", &options.dtype},   {"--scratch", &options.scratch},
      {"--keep", &options.keep},     {"--json", &options.json},
      {"--trace", &options.trace}};
  const std::map<std::string, std::int32_t*> numbers = {{"--prompt-tokens", &options.prompt_tokens},
                                                        {"--step-tokens", &options.step_tokens},
                                                        {"--held-steps", &options.held_steps},
                                                        {"--rounds", &options.rounds},
                                                        {"--threads", &options.threads}};
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--codec" || name == "--no-codec") {
      options.codec = name == "--codec";
      continue;
    }
    if (name == "--trace-graphs") {
      options.whole_graphs = true;
      continue;
    }
    check(i + 1 < argc, name.c_str(), "expected a value, got the end of the line");
    const std::string value = argv[++i];
    if (texts.contains(name)) {
      *texts.at(name) = value;
    } else if (numbers.contains(name)) {
      *numbers.at(name) = to_int(value, name);
    } else if (name == "--concurrency") {
      options.concurrency = to_list(value, name);
    } else if (name == "--frames") {
      options.frames = to_list(value, name);
    } else if (name == "--arrivals") {
      options.arrival_rate = to_rate(value);
    } else {
      check(false, name.c_str(), "expected an option of higgs_bench, got an unknown one");
    }
  }
  check(options.model.empty() != options.shape.empty(), "higgs_bench",
        "expected either --model or --shape, got ", options.model.empty() ? "neither" : "both");
  check(options.keep.empty() || !options.shape.empty(), "--keep",
        "expected --shape beside it, got none");
  check(options.trace.empty() || options.on_gpu(), "--trace", "expected --device cuda, got ",
        options.device);
  check(!options.whole_graphs || !options.trace.empty(), "--trace-graphs",
        "expected --trace beside it, got none");
  check(options.rounds >= 1, "--rounds", "expected at least 1, got ", options.rounds);
  check(options.dtype == "bf16" || options.dtype == "f32", "--dtype", "expected bf16 or f32, got ",
        options.dtype);
  return options;
}

}  // namespace higgs_rt::bench
