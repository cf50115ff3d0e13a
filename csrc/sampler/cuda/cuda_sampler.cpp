#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "core/cuda/cuda_check.h"
#include "core/cuda/cuda_device.h"
#include "sampler/cuda/kernels/advance_rows.h"
#include "sampler/row_table.h"
#include "sampler/stream_rule.h"

namespace higgs_rt {

namespace {

constexpr const char* kWhere = "cuda sampler";

// Row states and columns stay in device memory. The kernel also writes a step's columns and flags
// to pinned host memory, so that no copy stands between two graphs. Where is the row's own affair:
// its steps take turns between two places, as many as there may be steps to fetch, and both sides
// count the row's steps. So nothing in the kernel's arguments changes from step to step.
class CudaSampler final : public Sampler {
 public:
  CudaSampler(const SamplerSpec& spec, Device& device) : table_(spec), device_(as_cuda(device)) {
    const auto rows = static_cast<std::size_t>(spec.max_rows);
    const std::size_t ids = rows * static_cast<std::size_t>(spec.num_codebooks);
    prepare_shared_memory();
    states_ = device_.allocate(rows * sizeof(RowState));
    last_columns_ = device_.allocate(ids * sizeof(std::int32_t));
    rows_ = device_.allocate(rows * sizeof(std::int32_t));
    results_ = device_.allocate_pinned(kMaxSteps * (ids + rows) * sizeof(std::int32_t));
    turns_.resize(rows);
    for (Fetched& fetched : fetched_) fetched.written = device_.make_event();
    const std::vector<std::int32_t> bos(ids, bos_id(spec.codebook_vocab));
    device_.copy_from_host(last_columns_.get(), bos.data(), ids * sizeof(std::int32_t));
    device_.synchronize();
  }

  ~CudaSampler() override { cudaStreamSynchronize(device_.stream()); }  // frees pinned memory next

  void open_row(std::int32_t row, const SamplingParams& params,
                std::span<const std::int32_t> history) override {
    RowState state = table_.open(row, params, history);
    state.turn = turns_[static_cast<std::size_t>(row)];  // a step of the last request may be due
    const auto index = static_cast<std::size_t>(row);
    const auto codebooks = static_cast<std::size_t>(table_.spec().num_codebooks);
    const std::vector<std::int32_t> bos(codebooks, bos_id(table_.spec().codebook_vocab));
    device_.copy_from_host(states() + index, &state, sizeof(state));
    device_.copy_from_host(columns_of(last_columns_) + index * codebooks, bos.data(),
                           codebooks * sizeof(std::int32_t));
  }

  void advance(const float* logits, std::span<const std::int32_t> rows) override {
    table_.check_rows(rows);
    const std::size_t place = table_.push_step(rows.size());
    device_.copy_from_host(rows_.get(), rows.data(), rows.size_bytes());
    enqueue(logits, columns_of(rows_), static_cast<std::int32_t>(rows.size()));
    note_step(place, rows);
  }

  void enqueue(const float* logits, const std::int32_t* rows, std::int32_t count) override {
    const SamplerSpec& spec = table_.spec();
    const AdvanceRows arguments = {states(), columns_of(last_columns_), logits,
                                   rows,     columns_of(results_),      spec.max_rows,
                                   count,    spec.num_codebooks,        spec.codebook_vocab};
    check_cuda(launch_advance_rows(arguments, device_.stream()), kWhere, "advance_rows");
  }

  void deliver(std::span<const std::int32_t> rows) override {
    table_.check_rows(rows);
    note_step(table_.push_step(rows.size()), rows);
  }

  void fetch(std::span<std::int32_t> columns, std::span<SampledRow> sampled) override {
    const RowTable::Step step = table_.oldest_step(columns.size(), sampled.size());
    table_.pop_step();  // even when waiting fails
    if (step.rows == 0) return;
    const Fetched& fetched = fetched_[step.place];
    fetched.written->wait();
    const auto codebooks = static_cast<std::size_t>(table_.spec().num_codebooks);
    for (std::size_t i = 0; i < step.rows; ++i) {
      const std::int32_t* result = columns_of(results_) + fetched.results[i] * (codebooks + 1);
      std::copy_n(result, codebooks, columns.data() + i * codebooks);
      sampled[i] = {(result[codebooks] & 1) != 0, (result[codebooks] & 2) != 0};
    }
  }

  const std::int32_t* last_columns() const override { return columns_of(last_columns_); }

 private:
  using Buffer = std::shared_ptr<void>;

  static std::int32_t* columns_of(const Buffer& buffer) {
    return static_cast<std::int32_t*>(buffer.get());
  }
  RowState* states() const { return static_cast<RowState*>(states_.get()); }
  // Notes where the rows' results of the step just enqueued go.
  void note_step(std::size_t place, std::span<const std::int32_t> rows) {
    Fetched& fetched = fetched_[place];
    fetched.results.clear();
    for (const std::int32_t row : rows) {
      const auto index = static_cast<std::size_t>(row);
      fetched.results.push_back(turns_[index]++ % kMaxSteps * turns_.size() + index);
    }
    fetched.written->record();
  }

  void prepare_shared_memory() {
    device_.activate();
    const SamplerSpec& spec = table_.spec();
    const std::size_t needed = advance_rows_shared_bytes(spec.num_codebooks, spec.codebook_vocab);
    int limit = 0;
    check_cuda(
        cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_.ordinal()),
        kWhere, "cudaDeviceGetAttribute");
    // As much as any sampler may want: the limit belongs to the kernel, which another may share.
    std::size_t usable = 0;
    check_cuda(prepare_advance_rows(static_cast<std::size_t>(limit), usable), kWhere,
               "cudaFuncSetAttribute");
    if (needed > usable) {
      fail(ErrorCode::kUnsupported, kWhere,
           "expected num_codebooks x codebook_vocab <= ", usable / advance_rows_shared_bytes(1, 1),
           " on ", device_.name(), ", got ", spec.num_codebooks, " x ", spec.codebook_vocab);
    }
  }

  RowTable table_;
  CudaDevice& device_;
  Buffer states_;        // RowState [max_rows]
  Buffer last_columns_;  // int32 [max_rows, num_codebooks]
  Buffer rows_;          // int32 [max_rows]
  Buffer results_;       // AdvanceRows::results, int32 [kMaxSteps, max_rows, num_codebooks + 1]
  static_assert(kMaxSteps == 2);
  std::vector<std::uint32_t> turns_;  // [max_rows]: RowState::turn behind the steps enqueued
  struct Fetched {
    std::vector<std::size_t> results;  // where each row's is
    std::unique_ptr<DeviceEvent> written;
  };
  std::array<Fetched, kMaxSteps> fetched_;
};

}  // namespace

std::unique_ptr<Sampler> make_cuda_sampler(const SamplerSpec& spec, Device& device) {
  return std::make_unique<CudaSampler>(spec, device);
}

}  // namespace higgs_rt
