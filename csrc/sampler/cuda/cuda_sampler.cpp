#include <algorithm>
#include <cstring>

#include "core/cuda/cuda_check.h"
#include "core/cuda/cuda_device.h"
#include "sampler/cuda/kernels/advance_rows.h"
#include "sampler/row_table.h"
#include "sampler/stream_rule.h"

namespace higgs_rt {

namespace {

constexpr const char* kWhere = "cuda sampler";

struct EventDelete {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
struct PinnedDelete {
  void operator()(void* memory) const { cudaFreeHost(memory); }
};

// Row states and columns stay in device memory; a copy of each step's columns and flags goes to
// pinned host memory behind the kernel, and fetch() waits for that copy only.
class CudaSampler final : public Sampler {
 public:
  CudaSampler(const SamplerSpec& spec, Device& device) : table_(spec), device_(as_cuda(device)) {
    const auto rows = static_cast<std::size_t>(spec.max_rows);
    const std::size_t ids = rows * static_cast<std::size_t>(spec.num_codebooks);
    prepare_shared_memory();
    states_ = device_.allocate(rows * sizeof(RowState));
    last_columns_ = device_.allocate(ids * sizeof(std::int32_t));
    rows_ = device_.allocate(rows * sizeof(std::int32_t));
    output_bytes_ = ids * sizeof(std::int32_t) + rows;
    output_ = device_.allocate(output_bytes_);
    void* pinned = nullptr;
    check_cuda(cudaMallocHost(&pinned, output_bytes_), kWhere, "cudaMallocHost");
    fetched_.reset(static_cast<std::byte*>(pinned));
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), kWhere,
               "cudaEventCreateWithFlags");
    copied_.reset(event);
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
    advanced_ = rows.size();
    if (rows.empty()) return;
    device_.copy_from_host(rows_.get(), rows.data(), rows.size_bytes());
    const SamplerSpec& spec = table_.spec();
    const AdvanceRows arguments = {states(),
                                   columns_of(last_columns_),
                                   logits,
                                   columns_of(rows_),
                                   columns_of(output_),
                                   static_cast<std::uint8_t*>(output_.get()) + flags_offset(),
                                   static_cast<std::int32_t>(rows.size()),
                                   spec.num_codebooks,
                                   spec.codebook_vocab};
    check_cuda(launch_advance_rows(arguments, device_.stream()), kWhere, "advance_rows");
    check_cuda(cudaMemcpyAsync(fetched_.get(), output_.get(), output_bytes_, cudaMemcpyDeviceToHost,
                               device_.stream()),
               kWhere, "cudaMemcpyAsync of the columns");
    check_cuda(cudaEventRecord(copied_.get(), device_.stream()), kWhere, "cudaEventRecord");
  }

  void fetch(std::span<std::int32_t> columns, std::span<SampledRow> sampled) override {
    table_.check_fetch(advanced_, columns.size(), sampled.size());
    if (advanced_ == 0) return;
    check_cuda(cudaEventSynchronize(copied_.get()), kWhere, "cudaEventSynchronize");
    std::memcpy(columns.data(), fetched_.get(), columns.size_bytes());
    for (std::size_t i = 0; i < advanced_; ++i) {
      const auto flags = std::to_integer<unsigned>(fetched_.get()[flags_offset() + i]);
      sampled[i] = {(flags & 1u) != 0, (flags & 2u) != 0};
    }
  }

  const std::int32_t* last_columns() const override { return columns_of(last_columns_); }

 private:
  using Buffer = std::shared_ptr<void>;

  static std::int32_t* columns_of(const Buffer& buffer) {
    return static_cast<std::int32_t*>(buffer.get());
  }
  RowState* states() const { return static_cast<RowState*>(states_.get()); }
  std::size_t flags_offset() const {
    return output_bytes_ - static_cast<std::size_t>(table_.spec().max_rows);
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
  Buffer output_;        // of one step: int32 [max_rows, num_codebooks], then flags [max_rows]
  std::size_t output_bytes_ = 0;
  std::unique_ptr<std::byte, PinnedDelete> fetched_;  // copy of output_
  std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, EventDelete> copied_;
  std::size_t advanced_ = 0;  // rows of the last advance()
};

}  // namespace

std::unique_ptr<Sampler> make_cuda_sampler(const SamplerSpec& spec, Device& device) {
  return std::make_unique<CudaSampler>(spec, device);
}

}  // namespace higgs_rt
