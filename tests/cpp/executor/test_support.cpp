#include "executor/support.h"

#include <algorithm>

#include "check.h"

namespace higgs_rt::testing {

PromptSegment text_segment(std::vector<std::int32_t> ids) {
  PromptSegment segment;
  segment.kind = PromptSegment::Kind::kText;
  segment.ids = std::move(ids);
  return segment;
}

Request text_request(std::vector<std::int32_t> ids, std::int32_t max_columns, std::uint64_t seed) {
  Request request;
  request.prompt.push_back(text_segment(std::move(ids)));
  request.max_columns = max_columns;
  request.sampling.seed = seed;
  return request;
}

namespace {

std::vector<std::int32_t> random_ids(Random& random, std::int32_t count, std::int32_t limit) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
  for (std::int32_t& id : ids) id = draw(random, 0, limit - 1);
  return ids;
}

PromptSegment random_segment(Random& random, const EngineSpec& spec) {
  PromptSegment segment;
  switch (draw(random, 0, 2)) {
    case 0:
      return text_segment(random_ids(random, draw(random, 1, 20), spec.text_vocab));
    case 1:
      segment.kind = PromptSegment::Kind::kAudio;
      segment.ids =
          random_ids(random, draw(random, 1, 8) * spec.num_codebooks, spec.codebook_vocab - 2);
      return segment;
    default:
      segment.kind = PromptSegment::Kind::kTable;
      segment.rows.resize(static_cast<std::size_t>(draw(random, 1, 3) * spec.hidden_size));
      for (float& value : segment.rows) value = static_cast<float>(draw(random, -99, 99));
      return segment;
  }
}

SamplingParams random_sampling(Random& random, const EngineSpec& spec) {
  SamplingParams sampling;
  sampling.temperature = std::vector<float>{0.0f, 0.7f, 1.3f}[draw(random, 0, 2)];
  sampling.top_k = draw(random, 0, 1) * draw(random, 1, spec.codebook_vocab);
  sampling.top_p = draw(random, 0, 1) == 0 ? 1.0f : 0.9f;
  sampling.ras_window = draw(random, 0, 9);
  sampling.ras_max_repeat = draw(random, 1, 3);
  sampling.seed = static_cast<std::uint64_t>(random());
  sampling.rule = draw(random, 0, 1) == 0 ? StreamRule::kFirstEos : StreamRule::kTransformers;
  return sampling;
}

// Hashes of the prompt's positions; audio columns are appended to `columns` as well.
std::vector<std::uint64_t> expand(const Request& request, const EngineSpec& spec,
                                  std::vector<std::int32_t>& columns) {
  std::vector<std::uint64_t> hashes;
  const std::int32_t codebooks = spec.num_codebooks;
  for (const PromptSegment& segment : request.prompt) {
    if (segment.kind == PromptSegment::Kind::kText) {
      for (const std::int32_t id : segment.ids) hashes.push_back(hash_text(id));
    } else if (segment.kind == PromptSegment::Kind::kTable) {
      for (std::size_t i = 0; i < segment.rows.size(); i += spec.hidden_size) {
        hashes.push_back(hash_table_row(&segment.rows[i], spec.hidden_size));
      }
    } else {
      const auto frames = static_cast<std::int32_t>(segment.ids.size()) / codebooks;
      for (std::int32_t c = 0; c < frames + codebooks + 1; ++c) {
        for (std::int32_t k = 0; k < codebooks; ++k) {
          const std::int32_t frame = c - k - 1;
          columns.push_back(frame < 0         ? spec.codebook_vocab - 2
                            : frame >= frames ? spec.codebook_vocab - 1
                                              : segment.ids[k * frames + frame]);
        }
        hashes.push_back(hash_column(&columns[columns.size() - codebooks], codebooks));
      }
    }
  }
  return hashes;
}

}  // namespace

Request random_request(Random& random, const EngineSpec& spec, std::int32_t max_columns) {
  Request request;
  for (int i = draw(random, 0, 3); i > 0; --i)
    request.prompt.push_back(random_segment(random, spec));
  request.prompt.push_back(text_segment(random_ids(random, draw(random, 1, 12), spec.text_vocab)));
  request.sampling = random_sampling(random, spec);
  request.max_columns = draw(random, 0, 9) == 0 ? 1 : draw(random, 2, max_columns);
  return request;
}

std::int32_t prompt_positions(const Request& request, const EngineSpec& spec) {
  std::vector<std::int32_t> columns;
  return static_cast<std::int32_t>(expand(request, spec, columns).size());
}

Answer reference_answer(const Request& request, const EngineSpec& spec) {
  std::vector<std::int32_t> history;
  std::uint64_t fold = 0;
  for (const std::uint64_t hash : expand(request, spec, history)) fold = mix(fold, hash);
  const auto width = static_cast<std::size_t>(spec.num_codebooks);
  const std::size_t window =
      std::min(history.size(), static_cast<std::size_t>(request.sampling.ras_window) * width);
  history.erase(history.begin(), history.end() - static_cast<std::ptrdiff_t>(window));
  const auto sampler = make_cpu_sampler({1, spec.num_codebooks, spec.codebook_vocab});
  sampler->open_row(0, request.sampling, history);
  Answer answer;
  std::vector<std::int32_t> column(width, spec.codebook_vocab - 2);
  std::vector<float> logits(width * static_cast<std::size_t>(spec.codebook_vocab));
  std::vector<SampledRow> sampled(1);
  const std::int32_t row = 0;
  for (std::int32_t count = 1;; ++count) {
    answer.columns.insert(answer.columns.end(), column.begin(), column.end());
    answer.reason = sampled[0].finished            ? FinishReason::kStop
                    : count == request.max_columns ? FinishReason::kLength
                                                   : FinishReason::kNone;
    if (answer.reason != FinishReason::kNone) return answer;
    const std::uint64_t hash = hash_column(column.data(), spec.num_codebooks);
    fold = mix(fold, spec.separate_decode ? hash_decoded(hash) : hash);
    hash_logits(fold, spec, logits.data());
    sampler->advance(logits.data(), {&row, 1});
    sampler->fetch(column, sampled);
  }
}

void CollectingSink::on_started() {
  if (start.valid()) start.wait();
  const std::scoped_lock lock(mutex_);
  if (started_ || finishes_ > 0) misuse_ += "on_started out of order; ";
  started_ = true;
}

void CollectingSink::on_column(std::span<const std::int32_t> column, bool ended) {
  {
    const std::scoped_lock lock(mutex_);
    if (!started_ || ended_ || finishes_ > 0) misuse_ += "on_column out of order; ";
    ended_ = ended;
    answer_.columns.insert(answer_.columns.end(), column.begin(), column.end());
    if (++count_ == pause_at) paused_ = true;
  }
  if (on_count) on_count(count_);
}

void CollectingSink::on_finish(FinishReason reason, const std::string& error) {
  const std::scoped_lock lock(mutex_);
  if (++finishes_ > 1) misuse_ += "on_finish again; ";
  if ((reason == FinishReason::kStop) != ended_) misuse_ += "`ended` does not match the reason; ";
  answer_.reason = reason;
  answer_.error = error;
  changed_.notify_all();
}

bool CollectingSink::finished() const {
  const std::scoped_lock lock(mutex_);
  return finishes_ > 0;
}

bool CollectingSink::wait(std::chrono::seconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return finishes_ > 0; });
}

Answer CollectingSink::answer() const {
  const std::scoped_lock lock(mutex_);
  return answer_;
}

std::string CollectingSink::misuse() const {
  const std::scoped_lock lock(mutex_);
  return misuse_;
}

void Client::start_behind(const std::shared_future<void>& gate, Executor& executor) {
  sink->start = gate;
  if (cancel_at < 0) return;
  sink->on_count = [this, &executor](std::int32_t count) {
    if (count >= cancel_at) executor.cancel(id);
  };
}

EngineSpec roomy_spec() { return small_spec({.block_tokens = 4, .num_blocks = 256}); }

ExecutorConfig small_config(std::int32_t max_batch, std::int32_t max_queue) {
  return {
      .max_batch = max_batch, .max_queue = max_queue, .max_step_tokens = 16, .max_sequence = 200};
}

Request long_request() {
  Request request = text_request({1, 2, 3}, 190);
  request.sampling.temperature = 0;
  return request;
}

ErrorCode code_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code();
  }
  report(__FILE__, __LINE__, "expected an Error");
  return ErrorCode::kInternal;
}

EngineSpec in_mode(EngineSpec spec, Mode mode) {
  spec.asynchronous = mode != Mode::kPlain;
  spec.separate_decode = mode == Mode::kPipelined;
  return spec;
}

std::unique_ptr<Sampler> make_rig_sampler(FakeEngine& engine, std::int32_t rows, Mode mode) {
  engine.runs_tail = mode == Mode::kPipelined;
  const SamplerSpec spec = {rows, engine.spec().num_codebooks, engine.spec().codebook_vocab};
  if (mode == Mode::kPlain) return make_cpu_sampler(spec);
  return std::make_unique<LazySampler>(spec, engine.queue);
}

Rig::Rig(const EngineSpec& spec, const ExecutorConfig& config, Mode mode)
    : engine(in_mode(spec, mode)),
      sampler(make_rig_sampler(engine, config.max_batch, mode)),
      executor(engine, *sampler, config) {}

void Rig::check_clean() {
  executor.shutdown();
  const RuntimeStats stats = executor.stats();
  EXPECT_EQ(stats.free_blocks, stats.total_blocks);
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.submitted, stats.finished + stats.cancelled + stats.failed);
  EXPECT_EQ(stats.steps, engine.steps);
  EXPECT_EQ(engine.violations.size(), 0u);
  if (!engine.violations.empty()) report(__FILE__, __LINE__, engine.violations.front());
}

void expect_reference(const CollectingSink& sink, const Request& request, const EngineSpec& spec,
                      bool may_be_cancelled) {
  const Answer expected = reference_answer(request, spec);
  Answer actual = sink.answer();
  EXPECT_EQ(sink.misuse(), "");
  EXPECT_EQ(actual.error, "");
  if (may_be_cancelled && actual.reason == FinishReason::kCancelled) {
    EXPECT(actual.columns.size() <= expected.columns.size() &&
           std::equal(actual.columns.begin(), actual.columns.end(), expected.columns.begin()));
    return;
  }
  EXPECT_EQ(static_cast<int>(actual.reason), static_cast<int>(expected.reason));
  EXPECT(actual.columns == expected.columns);
}

}  // namespace higgs_rt::testing
