#include <algorithm>
#include <array>
#include <vector>

#include "core/check.h"
#include "sampler/advance_row.h"
#include "sampler/cpu/host_lanes.h"
#include "sampler/row_table.h"

namespace higgs_rt {

namespace {

using SampleCodebook = std::int32_t (*)(const RowState& state, std::int32_t codebook,
                                        const float* logits, std::int32_t codebook_vocab,
                                        RowScratch scratch);

std::int32_t sample_codebook_baseline(const RowState& state, std::int32_t codebook,
                                      const float* logits, std::int32_t codebook_vocab,
                                      RowScratch scratch) {
  return sample_codebook(HostLanes{}, state, codebook, logits, codebook_vocab, scratch);
}

#if defined(__x86_64__) && defined(__GNUC__)
// The same source with wider vectors. Nothing is contracted (portable_math.h), so the bits stay the
// same.
__attribute__((target("avx2"), flatten)) std::int32_t sample_codebook_avx2(
    const RowState& state, std::int32_t codebook, const float* logits, std::int32_t codebook_vocab,
    RowScratch scratch) {
  return sample_codebook(HostLanes{}, state, codebook, logits, codebook_vocab, scratch);
}

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"),
               flatten)) std::int32_t
sample_codebook_avx512(const RowState& state, std::int32_t codebook, const float* logits,
                       std::int32_t codebook_vocab, RowScratch scratch) {
  return sample_codebook(HostLanes{}, state, codebook, logits, codebook_vocab, scratch);
}

SampleCodebook choose_sample_codebook() {
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) return sample_codebook_avx512;
  return __builtin_cpu_supports("avx2") ? sample_codebook_avx2 : sample_codebook_baseline;
}
#else
SampleCodebook choose_sample_codebook() { return sample_codebook_baseline; }
#endif

class CpuSampler final : public Sampler {
 public:
  explicit CpuSampler(const SamplerSpec& spec)
      : table_(spec),
        states_(static_cast<std::size_t>(spec.max_rows)),
        last_columns_(states_.size() * static_cast<std::size_t>(spec.num_codebooks)),
        keys_(static_cast<std::size_t>(spec.codebook_vocab)),
        weights_(keys_.size()) {}

  void open_row(std::int32_t row, const SamplingParams& params,
                std::span<const std::int32_t> history) override {
    const RowState opened = table_.open(row, params, history);
    states_[static_cast<std::size_t>(row)] = opened;
    std::fill_n(last_column(row), table_.spec().num_codebooks,
                bos_id(table_.spec().codebook_vocab));
  }

  void advance(const float* logits, std::span<const std::int32_t> rows) override {
    table_.check_rows(rows);
    const std::size_t place = table_.push_step(rows.size());
    enqueue(logits, rows.data(), static_cast<std::int32_t>(rows.size()));
    write_result(place, rows);
  }

  void enqueue(const float* logits, const std::int32_t* rows, std::int32_t count) override {
    const std::ptrdiff_t stride =
        std::ptrdiff_t{table_.spec().num_codebooks} * table_.spec().codebook_vocab;
    for (std::int32_t i = 0; i < count; ++i, logits += stride) {
      if (rows[i] >= 0) advance_row(rows[i], logits);
    }
  }

  void deliver(std::span<const std::int32_t> rows) override {
    table_.check_rows(rows);
    write_result(table_.push_step(rows.size()), rows);
  }

  void fetch(std::span<std::int32_t> columns, std::span<SampledRow> sampled) override {
    const RowTable::Step step = table_.oldest_step(columns.size(), sampled.size());
    const Result& result = results_[step.place];
    std::copy_n(result.columns.begin(), columns.size(), columns.begin());
    std::copy_n(result.sampled.begin(), sampled.size(), sampled.begin());
    table_.pop_step();
  }

  const std::int32_t* last_columns() const override { return last_columns_.data(); }

 private:
  // What a step wrote, kept until it is fetched.
  struct Result {
    std::vector<std::int32_t> columns;
    std::vector<SampledRow> sampled;
  };

  void write_result(std::size_t place, std::span<const std::int32_t> rows) {
    Result& result = results_[place];
    result.columns.clear();
    result.sampled.clear();
    for (const std::int32_t row : rows) {
      const RowState& state = states_[static_cast<std::size_t>(row)];
      const std::int32_t* column = last_column(row);
      result.columns.insert(result.columns.end(), column, column + table_.spec().num_codebooks);
      result.sampled.push_back({state.finished, state.failed});
    }
  }

  std::int32_t* last_column(std::int32_t row) {
    return last_columns_.data() + std::ptrdiff_t{row} * table_.spec().num_codebooks;
  }

  // logits [num_codebooks, codebook_vocab]
  void advance_row(std::int32_t row, const float* logits) {
    const SamplerSpec& spec = table_.spec();
    RowState& state = states_[static_cast<std::size_t>(row)];
    if (state.finished) return;
    std::int32_t* ids = last_column(row);
    const LiveRange live = live_range(state.stream, state.params.rule, spec.num_codebooks);
    for (std::int32_t k = live.first; k < live.last; ++k) {
      const float* codebook_logits = logits + std::ptrdiff_t{k} * spec.codebook_vocab;
      ids[k] = sample_codebook_(state, k, codebook_logits, spec.codebook_vocab,
                                {keys_.data(), weights_.data()});
    }
    finish_step(state, spec.num_codebooks, spec.codebook_vocab, ids);
  }

  SampleCodebook sample_codebook_ = choose_sample_codebook();
  RowTable table_;
  std::vector<RowState> states_;            // [max_rows]
  std::vector<std::int32_t> last_columns_;  // [max_rows, num_codebooks]
  std::array<Result, kMaxSteps> results_;   // of the steps that wait to be fetched
  std::vector<std::int32_t> keys_;          // [codebook_vocab], scratch
  std::vector<std::uint32_t> weights_;      // [codebook_vocab], scratch
};

}  // namespace

std::unique_ptr<Sampler> make_cpu_sampler(const SamplerSpec& spec) {
  return std::make_unique<CpuSampler>(spec);
}

}  // namespace higgs_rt
