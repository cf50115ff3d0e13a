#include "api/probe.h"

#include <algorithm>
#include <utility>

#include "api/backend.h"
#include "api/config_check.h"
#include "core/check.h"
#include "executor/batch_builder.h"
#include "executor/request_check.h"
#include "executor/sequence.h"
#include "kv/block_pool.h"
#include "sampler/delay_pattern.h"

namespace higgs_rt {

struct Probe::Impl {
  explicit Impl(const RuntimeConfig& config) : Impl(with_defaults(config), nullptr) {}
  Impl(const RuntimeConfig& config, std::nullptr_t)
      : limits{.max_batch = 1,
               .max_queue = 1,
               .max_step_tokens = config.max_step_tokens,
               .max_sequence = config.max_sequence},
        backend(load_backend(config, 1)),
        spec(backend.engine->spec()),
        last_column(backend.device->allocate(static_cast<std::size_t>(spec.num_codebooks) *
                                             sizeof(std::int32_t))) {}

  std::size_t row_size() const {
    return static_cast<std::size_t>(spec.num_codebooks) *
           static_cast<std::size_t>(spec.codebook_vocab);
  }

  std::unique_ptr<Sequence> make_sequence(const std::vector<PromptSegment>& prompt,
                                          std::span<const std::int32_t> columns,
                                          const std::string& adapter, BlockPool& pool) const;
  void step(Sequence& sequence, std::int32_t rows, std::span<float> logits);

  const ExecutorConfig limits;
  Backend backend;
  const EngineSpec spec;
  std::shared_ptr<void> last_column;  // [1, num_codebooks] i32 in device memory
};

namespace {

void check_columns(std::span<const std::int32_t> columns, const EngineSpec& spec) {
  const auto books = static_cast<std::size_t>(spec.num_codebooks);
  check(!columns.empty() && columns.size() % books == 0, "columns", "expected [n, num_codebooks ",
        books, "] with n at least 1, got ", columns.size(), " ids");
  for (std::size_t i = 0; i < columns.size(); ++i) {
    check(columns[i] >= 0 && columns[i] < spec.codebook_vocab, "columns", "[", i / books, ", ",
          i % books, "]: expected 0..", spec.codebook_vocab - 1, ", got ", columns[i]);
    check(i >= books || columns[i] == spec.codebook_vocab - 2, "columns", "[0, ", i,
          "]: expected BOS ", spec.codebook_vocab - 2, ", got ", columns[i]);
  }
}

}  // namespace

// The prompt and all columns, with blocks for every position.
std::unique_ptr<Sequence> Probe::Impl::make_sequence(const std::vector<PromptSegment>& prompt,
                                                     std::span<const std::int32_t> columns,
                                                     const std::string& adapter,
                                                     BlockPool& pool) const {
  const auto books = static_cast<std::size_t>(spec.num_codebooks);
  check_columns(columns, spec);
  validate_axes(prompt, backend.info);
  Request request;
  request.prompt = prompt;
  request.adapter = adapter;
  request.max_columns = static_cast<std::int32_t>(columns.size() / books);
  check_request(request, limits, spec);
  auto sequence = std::make_unique<Sequence>(request, nullptr, spec, pool);
  sequence->row = 0;
  for (std::size_t i = books; i < columns.size(); i += books) {
    sequence->append_column(columns.subspan(i, books));
  }
  sequence->blocks.reserve(sequence->size());
  return sequence;
}

// Runs the next `rows` positions; `logits` takes those of the columns among them.
void Probe::Impl::step(Sequence& sequence, std::int32_t rows, std::span<float> logits) {
  StepBatch batch;
  const BatchItem item{&sequence, rows};
  build_batch({&item, 1}, spec, batch);
  // Only a step of prompt rows takes several rows of one sequence.
  batch.decode = batch.decode && rows == 1;
  const auto count = static_cast<std::int32_t>(logits.size() / row_size());
  batch.logit_rows.clear();
  for (std::int32_t i = count; i > 0; --i) batch.logit_rows.push_back(batch.num_rows() - i);
  batch.sampler_rows.assign(static_cast<std::size_t>(count), 0);
  StepOutput output;
  const auto last = sequence.last_column();
  backend.device->copy_from_host(last_column.get(), last.data(), last.size_bytes());
  output.last_columns = static_cast<const std::int32_t*>(last_column.get());
  backend.engine->forward(batch, output);
  if (count > 0) backend.device->copy_to_host(logits.data(), output.logits, logits.size_bytes());
  sequence.computed += rows;
}

Probe::Probe(const RuntimeConfig& config) : impl_(std::make_unique<Impl>(config)) {}
Probe::~Probe() = default;

const ModelInfo& Probe::info() const { return impl_->backend.info; }

std::vector<float> Probe::logits(const std::vector<PromptSegment>& prompt,
                                 std::span<const std::int32_t> columns, std::int32_t chunk_rows,
                                 const std::string& adapter) {
  const std::int32_t most = std::min(impl_->spec.max_rows, impl_->limits.max_step_tokens);
  check(chunk_rows >= 0 && chunk_rows <= most, "chunk_rows", "expected 0..", most, ", got ",
        chunk_rows);
  BlockPool pool(impl_->spec.kv.num_blocks);
  const auto owned = impl_->make_sequence(prompt, columns, adapter, pool);
  Sequence& sequence = *owned;
  const std::size_t row_size = impl_->row_size();
  std::vector<float> out(static_cast<std::size_t>(sequence.num_columns()) * row_size);
  while (sequence.computed < sequence.size()) {
    const std::int32_t rows =
        std::min(chunk_rows == 0 ? most : chunk_rows, sequence.size() - sequence.computed);
    // Columns [first, end) of the stream are in this step.
    const std::int32_t first = std::max(sequence.computed - sequence.prompt_size(), 0);
    const std::int32_t end = std::max(sequence.computed + rows - sequence.prompt_size(), 0);
    impl_->step(sequence, rows,
                std::span(out).subspan(static_cast<std::size_t>(first) * row_size,
                                       static_cast<std::size_t>(end - first) * row_size));
  }
  return out;
}

std::vector<std::int32_t> delayed_columns(std::span<const std::int32_t> codes,
                                          std::int32_t num_codebooks, std::int32_t codebook_size) {
  return apply_delay(codes, num_codebooks, codebook_size);
}

}  // namespace higgs_rt
