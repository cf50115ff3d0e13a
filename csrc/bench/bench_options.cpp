#include "bench/bench_options.h"

#include <sstream>
#include <string_view>

#include "api/config_check.h"
#include "bench/command_line.h"
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

column     milliseconds between a request's columns, of language model and sampler alone
audio-s/s  seconds of audio made in a second, from the first request to the end of the last one
steady     that of a server whose N clients are all busy: from the moment when every client has
           ended its first request (those are sent at once) to the moment when the first client
           finds no request left (so as many requests begin as end). Every chunk is spread evenly
           over the time since the same request's chunk before it (the first: since it was sent),
           and counts with its share in that time. "-": there is no such time. With poisson it is
           the middle half of the run.
weights    the weights that a step of decode columns reads, by the column's p50, as a share of the
           memory bandwidth that was measured in the same run
host       share of the run in which the GPU had no step, by its own events, cut off at 0; what a
           step waits for within is its own time (--trace shows that)
RTF        seconds of the run, times requests at once, by seconds of audio. Not with poisson.
first      from sending a request to its first chunk of audio. "burst" is that of the first request
           of each client, which are sent all at once, "later" that of the others, which are sent to
           a server that is busy with the other clients; p50 and p95 beside them are of all
           requests. With poisson there are none of the two, with --rounds 1 none is later.
underruns  chunks that came later than the audio before them, played from the first chunk on, lasts
)";

namespace {

std::vector<std::int32_t> to_list(const std::string& text, const std::string& option,
                                  std::int32_t most) {
  std::vector<std::int32_t> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    out.push_back(to_number(part, option, 1, most));
  }
  check(!out.empty() && !text.ends_with(','), option.c_str(),
        "expected numbers with commas between, e.g. 1,4,8, got \"", text, "\"");
  return out;
}

double to_rate(const std::string& text) {
  constexpr std::string_view kPoisson = "poisson:";
  if (text == "closed") return 0;
  check(text.starts_with(kPoisson), "--arrivals", "expected closed or poisson:RATE, got \"", text,
        "\"");
  return to_positive(text.substr(kPoisson.size()), "--arrivals");
}

// What is wrong only together.
void check_together(const Options& options) {
  check(options.model.empty() != options.shape.empty(), "higgs_bench",
        "expected either --model or --shape, got ", options.model.empty() ? "neither" : "both");
  check(options.shape.empty() || options.shape == "higgs-v2-3b" || options.shape == "demo",
        "--shape", "expected higgs-v2-3b or demo, got ", options.shape);
  check(options.keep.empty() || !options.shape.empty(), "--keep",
        "expected --shape beside it, got none");
  check(options.trace.empty() || options.on_gpu(), "--trace", "expected --device cuda, got ",
        options.device);
  check(!options.whole_graphs || !options.trace.empty(), "--trace-graphs",
        "expected --trace beside it, got none");
  check(options.trace.empty() || options.json.empty(), "--json",
        "expected no --trace beside it, which has no figures, got both");
  check(options.dtype == "bf16" || options.dtype == "f32", "--dtype", "expected bf16 or f32, got ",
        options.dtype);
  const std::int64_t requests = std::int64_t{options.rounds} * options.most_requests();
  check(requests <= kMaxQueue, "--rounds", "expected at most ", kMaxQueue, " requests in all, got ",
        options.rounds, " of each of ", options.most_requests(), " clients");
  check(options.step_tokens == 0 || options.step_tokens > options.most_requests(), "--step-tokens",
        "expected more than the ", options.most_requests(), " requests of --concurrency, got ",
        options.step_tokens);
  check(options.positions() <= kMostPositions, "--frames", "expected at most ", kMostPositions,
        " positions of a request (prompt tokens, a quarter more frames and 64), got ",
        options.positions());
}

}  // namespace

Options parse(int argc, char** argv) {
  Options options;
  CommandLine line("higgs_bench");
  line.text("--model", options.model);
  line.text("--shape", options.shape);
  line.text("--device", options.device);
  line.text("--codec-dir", options.codec_dir);
  line.text("--dtype", options.dtype);
  line.text("--scratch", options.scratch);
  line.text("--keep", options.keep);
  line.output_file("--json", options.json);
  line.output_file("--trace", options.trace);
  line.number("--prompt-tokens", options.prompt_tokens, 1, kMostPositions);
  line.number("--step-tokens", options.step_tokens, 0, kMaxStepTokens);
  line.number("--held-steps", options.held_steps, 0);
  line.number("--rounds", options.rounds, 1);
  line.number("--threads", options.threads, 0, kMaxThreads);
  line.flag("--codec", [&] { options.codec = true; });
  line.flag("--no-codec", [&] { options.codec = false; });
  line.flag("--trace-graphs", [&] { options.whole_graphs = true; });
  line.value("--concurrency", [&](const std::string& value) {
    options.concurrency = to_list(value, "--concurrency", kMaxBatch);
  });
  line.value("--frames", [&](const std::string& value) {
    options.frames = to_list(value, "--frames", kMostPositions);
  });
  line.value("--arrivals",
             [&](const std::string& value) { options.arrival_rate = to_rate(value); });
  line.parse(argc, argv);
  check_together(options);
  return options;
}

}  // namespace higgs_rt::bench
