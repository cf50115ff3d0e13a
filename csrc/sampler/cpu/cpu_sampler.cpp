#include <algorithm>
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
// The same source with wider vectors. AVX2 has no fused multiply-add, so the bits stay the same.
__attribute__((target("avx2"), flatten)) std::int32_t sample_codebook_avx2(
    const RowState& state, std::int32_t codebook, const float* logits, std::int32_t codebook_vocab,
    RowScratch scratch) {
  return sample_codebook(HostLanes{}, state, codebook, logits, codebook_vocab, scratch);
}

SampleCodebook choose_sample_codebook() {
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
    const std::ptrdiff_t stride =
        std::ptrdiff_t{table_.spec().num_codebooks} * table_.spec().codebook_vocab;
    for (const std::int32_t row : rows) {
      advance_row(row, logits);
      logits += stride;
    }
    advanced_.assign(rows.begin(), rows.end());
  }

  void fetch(std::span<std::int32_t> columns, std::span<SampledRow> sampled) override {
    table_.check_fetch(advanced_.size(), columns.size(), sampled.size());
    std::int32_t* column = columns.data();
    for (std::size_t i = 0; i < advanced_.size(); ++i) {
      const RowState& state = states_[static_cast<std::size_t>(advanced_[i])];
      column = std::copy_n(last_column(advanced_[i]), table_.spec().num_codebooks, column);
      sampled[i] = {state.finished, state.failed};
    }
  }

  const std::int32_t* last_columns() const override { return last_columns_.data(); }

 private:
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
  std::vector<std::int32_t> advanced_;      // rows of the last advance()
  std::vector<std::int32_t> keys_;          // [codebook_vocab], scratch
  std::vector<std::uint32_t> weights_;      // [codebook_vocab], scratch
};

}  // namespace

std::unique_ptr<Sampler> make_cpu_sampler(const SamplerSpec& spec) {
  return std::make_unique<CpuSampler>(spec);
}

}  // namespace higgs_rt
