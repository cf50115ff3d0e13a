#include <array>
#include <cstddef>
#include <cstring>
#include <vector>

#include "core/cuda/cuda_check.h"
#include "core/cuda/cuda_device.h"
#include "sampler/cuda/kernels/advance_rows.h"
#include "sampler/row_table.h"
#include "sampler/stream_rule.h"

namespace higgs_rt {

namespace {

constexpr const char* kWhere = "cuda sampler";
constexpr std::size_t kAlignment = 16;  // of the columns behind the flags

// Row states and columns stay in device memory. The kernel leaves a step's columns and flags in
// output_, always the same memory, so that a graph may hold it; deliver() copies them behind the
// kernel to the step's place in pinned memory, and fetch() waits for that copy only.
class CudaSampler final : public Sampler {
 public:
  CudaSampler(const SamplerSpec& spec, Device& device) : table_(spec), device_(as_cuda(device)) {
    const auto rows = static_cast<std::size_t>(spec.max_rows);
    const std::size_t ids = rows * static_cast<std::size_t>(spec.num_codebooks);
    prepare_shared_memory();
    states_ = device_.allocate(rows * sizeof(RowState));
    last_columns_ = device_.allocate(ids * sizeof(std::int32_t));
    rows_ = device_.allocate(rows * sizeof(std::int32_t));
    flag_bytes_ = (rows + kAlignment - 1) / kAlignment * kAlignment;
    const std::vector<std::byte> zeros(flag_bytes_ + ids * sizeof(std::int32_t));
    output_ = device_.allocate(zeros.size());
    device_.copy_from_host(output_.get(), zeros.data(), zeros.size());  // it is copied as a whole
    for (Fetched& fetched : fetched_) {
      fetched.memory = device_.allocate_pinned(flag_bytes_ + ids * sizeof(std::int32_t));
      fetched.copied = device_.make_event();
    }
    const std::vector<std::int32_t> bos(ids, bos_id(spec.codebook_vocab));
    device_.copy_from_host(last_columns_.get(), bos.data(), ids * sizeof(std::int32_t));
    device_.synchronize();
  }

  ~CudaSampler() override { cudaStreamSynchronize(device_.stream()); }  // frees pinned memory next

  void open_row(std::int32_t row, const SamplingParams& params,
                std::span<const std::int32_t> history) override {
    const RowState state = table_.open(row, params, history);
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
    copy_result(place, rows.size());
  }

  void enqueue(const float* logits, const std::int32_t* rows, std::int32_t count) override {
    const SamplerSpec& spec = table_.spec();
    const AdvanceRows arguments = {
        states(), columns_of(last_columns_), logits,
        rows,     columns_in(output_),       static_cast<std::uint8_t*>(output_.get()),
        count,    spec.num_codebooks,        spec.codebook_vocab};
    check_cuda(launch_advance_rows(arguments, device_.stream()), kWhere, "advance_rows");
  }

  void deliver(std::span<const std::int32_t> rows) override {
    table_.check_rows(rows);
    copy_result(table_.push_step(rows.size()), rows.size());
  }

  void fetch(std::span<std::int32_t> columns, std::span<SampledRow> sampled) override {
    const RowTable::Step step = table_.oldest_step(columns.size(), sampled.size());
    table_.pop_step();  // even when waiting fails
    if (step.rows == 0) return;
    const Fetched& fetched = fetched_[step.place];
    fetched.copied->wait();
    std::memcpy(columns.data(), columns_in(fetched.memory), columns.size_bytes());
    const auto* flags = static_cast<const std::uint8_t*>(fetched.memory.get());
    for (std::size_t i = 0; i < step.rows; ++i) {
      sampled[i] = {(flags[i] & 1u) != 0, (flags[i] & 2u) != 0};
    }
  }

  const std::int32_t* last_columns() const override { return columns_of(last_columns_); }

 private:
  using Buffer = std::shared_ptr<void>;

  static std::int32_t* columns_of(const Buffer& buffer) {
    return static_cast<std::int32_t*>(buffer.get());
  }
  RowState* states() const { return static_cast<RowState*>(states_.get()); }
  // Flags [max_rows] come first in a step's output, columns behind them, so that one copy takes
  // the flags and the columns of the rows in use.
  std::int32_t* columns_in(const Buffer& output) const {
    return reinterpret_cast<std::int32_t*>(static_cast<std::byte*>(output.get()) + flag_bytes_);
  }

  void copy_result(std::size_t place, std::size_t rows) {
    const Fetched& fetched = fetched_[place];
    const std::size_t ids = rows * static_cast<std::size_t>(table_.spec().num_codebooks);
    device_.copy_to_pinned(fetched.memory.get(), output_.get(),
                           flag_bytes_ + ids * sizeof(std::int32_t));
    fetched.copied->record();
  }

  void prepare_shared_memory() {
    device_.activate();
    const SamplerSpec& spec = table_.spec();
    const std::size_t needed = advance_rows_shared_bytes(spec.num_codebooks, spec.codebook_vocab);
    int limit = 0;
    check_cuda(
        cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_.ordinal()),
        kWhere, "cudaDeviceGetAttribute");
    const auto usable =
        static_cast<std::size_t>(limit) - 1024;  // the kernel's own and the driver's
    if (needed > usable) {
      fail(ErrorCode::kUnsupported, kWhere,
           "expected num_codebooks x codebook_vocab <= ", usable / advance_rows_shared_bytes(1, 1),
           " on ", device_.name(), ", got ", spec.num_codebooks, " x ", spec.codebook_vocab);
    }
    check_cuda(prepare_advance_rows(needed), kWhere, "cudaFuncSetAttribute");
  }

  RowTable table_;
  CudaDevice& device_;
  Buffer states_;        // RowState [max_rows]
  Buffer last_columns_;  // int32 [max_rows, num_codebooks]
  Buffer rows_;          // int32 [max_rows]
  Buffer output_;        // of one step: flags [max_rows], then int32 [max_rows, num_codebooks]
  std::size_t flag_bytes_ = 0;
  struct Fetched {
    Buffer memory;  // pinned copy of output_
    std::unique_ptr<DeviceEvent> copied;
  };
  std::array<Fetched, kMaxSteps> fetched_;
};

}  // namespace

std::unique_ptr<Sampler> make_cuda_sampler(const SamplerSpec& spec, Device& device) {
  return std::make_unique<CudaSampler>(spec, device);
}

}  // namespace higgs_rt
