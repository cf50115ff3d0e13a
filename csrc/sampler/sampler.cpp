#include "sampler/sampler.h"

#include <cmath>

#include "core/check.h"
#include "sampler/advance_row.h"
#include "sampler/row_table.h"

namespace higgs_rt {

namespace {

constexpr float kMaxTemperature = 100.0f;

template <class Value>
void check_range(const char* field, Value value, Value low, Value high) {
  check(value >= low && value <= high, "sampling", "expected ", field, " in [", low, ", ", high,
        "], got ", value);
}

void check_spec(const SamplerSpec& spec) {
  check(spec.max_rows >= 1, "sampler", "expected max_rows >= 1, got ", spec.max_rows);
  check(spec.num_codebooks >= 1 && spec.num_codebooks <= kMaxCodebooks, "sampler",
        "expected num_codebooks in [1, ", kMaxCodebooks, "], got ", spec.num_codebooks);
  check(spec.codebook_vocab >= 3 && spec.codebook_vocab <= kMaxCodebookVocab, "sampler",
        "expected codebook_vocab in [3, ", kMaxCodebookVocab, "], got ", spec.codebook_vocab);
}

}  // namespace

void validate(const SamplingParams& params, std::int32_t codebook_vocab) {
  check_range("temperature", params.temperature, 0.0f, kMaxTemperature);  // a NaN fails as well
  check_range("top_k", params.top_k, 0, codebook_vocab);
  check(params.top_p > 0.0f && params.top_p <= 1.0f, "sampling", "expected top_p in (0, 1], got ",
        params.top_p);
  check_range("ras_window", params.ras_window, 0, kMaxRasWindow);
  check(params.ras_max_repeat >= 1, "sampling", "expected ras_max_repeat >= 1, got ",
        params.ras_max_repeat);
  check(params.rule == StreamRule::kFirstEos || params.rule == StreamRule::kTransformers,
        "sampling", "expected rule kFirstEos (0) or kTransformers (1), got ",
        static_cast<std::int32_t>(params.rule));
}

RowTable::RowTable(const SamplerSpec& spec) : spec_(spec) {
  check_spec(spec);
  open_.resize(static_cast<std::size_t>(spec.max_rows));
  marks_.resize(static_cast<std::size_t>(spec.max_rows));
}

RowState RowTable::open(std::int32_t row, const SamplingParams& params,
                        std::span<const std::int32_t> history) {
  check(row >= 0 && row < spec_.max_rows, "sampler", "expected row in [0, ", spec_.max_rows,
        "), got ", row);
  validate(params, spec_.codebook_vocab);
  const auto codebooks = static_cast<std::size_t>(spec_.num_codebooks);
  check(history.size() % codebooks == 0, "sampler", "expected history of whole columns of ",
        codebooks, " ids, got ", history.size(), " ids");
  for (const std::int32_t id : history) {
    check(id >= 0 && id < spec_.codebook_vocab, "sampler", "expected history ids in [0, ",
          spec_.codebook_vocab, "), got ", id);
  }
  RowState state;
  state.params = params;
  for (std::size_t i = 0; i < history.size(); i += codebooks) {
    remember_column(state, spec_.num_codebooks, history.data() + i);
  }
  const std::vector<std::int32_t> bos(codebooks, bos_id(spec_.codebook_vocab));
  remember_column(state, spec_.num_codebooks, bos.data());
  open_[static_cast<std::size_t>(row)] = 1;
  return state;
}

void RowTable::check_rows(std::span<const std::int32_t> rows) {
  ++mark_;
  for (const std::int32_t row : rows) {
    check(row >= 0 && row < spec_.max_rows, "sampler", "expected row in [0, ", spec_.max_rows,
          "), got ", row);
    const auto index = static_cast<std::size_t>(row);
    check(open_[index] != 0, "sampler", "expected open rows, got row ", row,
          ", which was never opened");
    check(marks_[index] != mark_, "sampler", "expected each row once, got row ", row, " twice");
    marks_[index] = mark_;
  }
}

std::size_t RowTable::push_step(std::size_t rows) {
  check(pushed_ - popped_ < Sampler::kMaxSteps, "sampler", "expected at most ", Sampler::kMaxSteps,
        " steps that wait to be fetched, got one more");
  const std::size_t place = pushed_++ % Sampler::kMaxSteps;
  steps_[place] = rows;
  return place;
}

RowTable::Step RowTable::oldest_step(std::size_t columns, std::size_t sampled) const {
  Step step;
  step.place = popped_ % Sampler::kMaxSteps;
  if (popped_ != pushed_) step.rows = steps_[step.place];
  const std::size_t ids = step.rows * static_cast<std::size_t>(spec_.num_codebooks);
  check(columns == ids, "sampler", "expected room for ", ids, " ids, got ", columns);
  check(sampled == step.rows, "sampler", "expected room for ", step.rows, " rows, got ", sampled);
  return step;
}

void RowTable::pop_step() {
  if (popped_ != pushed_) ++popped_;
}

std::unique_ptr<Sampler> make_sampler(const SamplerSpec& spec, Device& device) {
  if (device.kind() == DeviceKind::kCuda) return make_cuda_sampler(spec, device);
  return make_cpu_sampler(spec);
}

}  // namespace higgs_rt
