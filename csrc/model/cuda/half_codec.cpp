#include "model/cuda/half_codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/cuda/cuda_check.h"
#include "core/trace.h"
#include "model/codec_spec.h"
#include "model/codec_window.h"
#include "model/cuda/half_layers.h"

namespace higgs_rt {

namespace {

constexpr const char* kWhere = "cuda codec";
// Wanted frames of an item: each number has windows and graphs of its own.
constexpr std::int32_t kSizes[] = {8, 16, 24, 32, 48, 64};
constexpr std::int32_t kMaxJobs = 128;
// Wanted frames of a launch: bounds memory (about 0.25 MB a frame at the released width), and how
// long a first chunk waits for the launch before it.
constexpr std::int32_t kMaxFrames = 1024;

// Start of the input of a launch; behind it the codes, [items, rows, codebooks] i32.
struct InputHead {
  std::int32_t count = 0;
  std::int32_t unused[3] = {};
  std::array<int2, kMaxJobs> valid{};
};

struct BlockingEvent {
  BlockingEvent() {
    // Waiting threads sleep.
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventBlockingSync | cudaEventDisableTiming),
               kWhere, "cudaEventCreateWithFlags");
  }
  ~BlockingEvent() { cudaEventDestroy(event); }
  BlockingEvent(const BlockingEvent&) = delete;
  BlockingEvent& operator=(const BlockingEvent&) = delete;
  cudaEvent_t event = nullptr;
};

class HalfCodecDecoder final : public CodecDecoder {
 public:
  HalfCodecDecoder(const CodecConfig& config, HalfCodecWeights weights, CudaDevice& device)
      : spec_(codec_spec(config)), config_(config), weights_(std::move(weights)), device_(device) {
    check_cuda(prepare_half_conv(), kWhere, "cudaFuncSetAttribute");
    check_cuda(prepare_half_unit(), kWhere, "cudaFuncSetAttribute");
    check_cuda(prepare_half_block(), kWhere, "cudaFuncSetAttribute");
    for (const std::int32_t size : kSizes) windows_[size] = codec_window(config.ratios, size);
    allocate();
    record_graphs();
    device_.synchronize();
  }
  ~HalfCodecDecoder() override { cudaStreamSynchronize(device_.stream()); }  // frees memory next

  const CodecSpec& spec() const override { return spec_; }

  void decode_range(std::span<const std::int32_t> codes, std::int32_t num_frames,
                    std::int32_t begin, std::int32_t end, std::span<float> pcm) override {
    check_codec_job(spec_, {codes, num_frames, begin, end, pcm});
    constexpr std::int32_t kWidest = kSizes[std::size(kSizes) - 1];
    const auto hop = static_cast<std::size_t>(spec_.samples_per_frame);
    std::vector<Job> jobs;
    for (std::int32_t first = begin; first < end; first += kWidest) {
      const std::int32_t last = std::min(first + kWidest, end);
      jobs.push_back({codes, num_frames, first, last,
                      pcm.subspan(static_cast<std::size_t>(first - begin) * hop,
                                  static_cast<std::size_t>(last - first) * hop)});
    }
    const std::int32_t size = jobs.size() == 1 ? batch_size(end - begin) : kWidest;
    const auto limit = static_cast<std::size_t>(batch_jobs(size));
    for (std::size_t i = 0; i < jobs.size(); i += limit) {
      const std::size_t count = std::min(limit, jobs.size() - i);
      run(std::span(jobs).subspan(i, count), size);
      finish();
    }
  }

  // The smallest of kSizes that holds them.
  std::int32_t batch_size(std::int32_t frames) const override {
    for (const std::int32_t size : kSizes) {
      if (frames <= size) return size;
    }
    return frames;
  }
  std::int32_t batch_jobs(std::int32_t frames) const override {
    const std::int32_t size = batch_size(frames);
    return windows_.contains(size) ? std::min(kMaxJobs, kMaxFrames / size) : 0;
  }

  void start(std::span<const Job> jobs) override {
    check_internal(running_.empty() && !jobs.empty(), kWhere,
                   "expected one batch of jobs at a time");
    const std::int32_t size = batch_size(jobs[0].end - jobs[0].begin);
    for (const Job& job : jobs) {
      check_codec_job(spec_, job);
      check_internal(batch_size(job.end - job.begin) == size && windows_.contains(size), kWhere,
                     "expected jobs of one batch size up to ", kSizes[std::size(kSizes) - 1],
                     ", got ", job.end - job.begin, " frames beside ", size);
    }
    check_internal(std::ssize(jobs) <= batch_jobs(size), kWhere, "expected at most ",
                   batch_jobs(size), " jobs, got ", jobs.size());
    run(jobs, size);
  }

  void finish() override {
    const std::vector<Job> jobs = std::exchange(running_, {});
    if (jobs.empty()) return;
    const TraceRange trace("codec wait");
    check_cuda(cudaEventSynchronize(done_.event), kWhere, "cudaEventSynchronize");
    const std::size_t samples = samples_of(running_size_);
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      std::copy_n(host_pcm() + i * samples, jobs[i].pcm.size(), jobs[i].pcm.begin());
    }
  }

 private:
  // Jobs of up to `size` frames, one of kSizes.
  void run(std::span<const Job> jobs, std::int32_t size) {
    const TraceRange trace("codec batch");
    device_.activate();  // first in a thread: otherwise its calls would open GPU 0
    const CodecWindow& window = windows_.at(size);
    InputHead head;
    head.count = static_cast<std::int32_t>(jobs.size());
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      head.valid[i] = {-jobs[i].begin, jobs[i].num_frames - jobs[i].begin};
      fill_codes(jobs[i], window, host_codes() + i * codes_of(window));
    }
    std::memcpy(host_input_.get(), &head, sizeof head);
    const auto rounded = static_cast<std::int32_t>(std::bit_ceil(jobs.size()));
    graphs_.at({size, std::min(rounded, batch_jobs(size))})->launch();
    check_cuda(cudaEventRecord(done_.event, device_.stream()), kWhere, "cudaEventRecord");
    running_.assign(jobs.begin(), jobs.end());
    running_size_ = size;
  }

  // Codes of the window around job.begin, [rows, codebooks]; 0 where the utterance has none.
  void fill_codes(const Job& job, const CodecWindow& window, std::int32_t* out) const {
    for (std::int32_t t = 0; t < window.rows; ++t) {
      const std::int32_t frame = job.begin + window.begin + t;
      const bool exists = frame >= 0 && frame < job.num_frames;
      for (std::int32_t k = 0; k < spec_.num_codebooks; ++k, ++out) {
        *out = exists ? job.codes[static_cast<std::size_t>(k * job.num_frames + frame)] : 0;
      }
    }
  }

  // All of them now, so that no listener waits for one.
  void record_graphs() {
    for (const std::int32_t size : kSizes) {
      const std::int32_t most = batch_jobs(size);
      for (std::int32_t next = 1; next < 2 * most; next *= 2) {
        const std::int32_t items = std::min(next, most);
        graphs_[{size, items}] = device_.capture([this, size, items] { enqueue(size, items); });
      }
    }
  }

  void enqueue(std::int32_t size, std::int32_t items) {
    const CodecWindow& window = windows_.at(size);
    const auto count = static_cast<std::size_t>(items);
    device_.copy_from_host(input_.get(), host_input_.get(),
                           sizeof(InputHead) + count * codes_of(window) * sizeof(std::int32_t));
    const auto* head = reinterpret_cast<const InputHead*>(input_.get());
    const HalfBatch batch = {.count = &head->count,
                             .valid = head->valid.data(),
                             .max_items = items,
                             .early = device_.priority() == Priority::kHigh};
    const auto* codes = reinterpret_cast<const std::int32_t*>(head + 1);
    enqueue_half_layers(config_, weights_, buffers_, window, batch, codes, pcm_.get(),
                        device_.stream());
    device_.copy_to_pinned(host_pcm_.get(), pcm_.get(), count * samples_of(size) * sizeof(float));
  }

  // For the largest launch of every size.
  void allocate() {
    std::size_t halves = 0, floats = 0, input = 0, samples = 0;
    for (const auto& [size, window] : windows_) {
      const auto items = static_cast<std::size_t>(batch_jobs(size));
      const auto numbers = [&](std::int32_t rows, std::int32_t channels) {
        return items * static_cast<std::size_t>(rows) * static_cast<std::size_t>(channels);
      };
      halves = std::max({halves, numbers(window.rows, weights_.first.channels),
                         numbers(window.rows, weights_.first.outputs)});
      for (std::size_t i = 0; i < window.blocks.size(); ++i) {
        floats = std::max(
            floats, numbers(window.blocks[i].rows * config_.ratios[i], weights_.blocks[i].outputs));
      }
      input = std::max(input, items * codes_of(window));
      samples = std::max(samples, items * samples_of(size));
    }
    halves = std::max(halves, floats);
    buffers_ = {{device_, halves}, {device_, halves}, {device_, floats}};
    const std::size_t bytes = sizeof(InputHead) + input * sizeof(std::int32_t);
    input_ = {device_, bytes};
    host_input_ = device_.allocate_pinned(bytes);
    pcm_ = {device_, samples};
    host_pcm_ = device_.allocate_pinned(samples * sizeof(float));
    // A graph has room for more items than a launch may fill; what is read there is thrown away.
    clear(buffers_.a.get(), halves * sizeof(__half));
    clear(buffers_.b.get(), halves * sizeof(__half));
    clear(buffers_.x.get(), floats * sizeof(float));
    clear(pcm_.get(), samples * sizeof(float));
  }

  void clear(void* memory, std::size_t bytes) {
    check_cuda(cudaMemsetAsync(memory, 0, bytes, device_.stream()), kWhere, "cudaMemsetAsync");
  }

  std::size_t codes_of(const CodecWindow& window) const {
    return static_cast<std::size_t>(window.rows) * static_cast<std::size_t>(spec_.num_codebooks);
  }
  std::size_t samples_of(std::int32_t frames) const {
    return static_cast<std::size_t>(frames) * static_cast<std::size_t>(spec_.samples_per_frame);
  }
  std::int32_t* host_codes() const {
    return reinterpret_cast<std::int32_t*>(static_cast<InputHead*>(host_input_.get()) + 1);
  }
  const float* host_pcm() const { return static_cast<const float*>(host_pcm_.get()); }

  const CodecSpec spec_;
  const CodecConfig config_;
  const HalfCodecWeights weights_;
  CudaDevice& device_;
  std::map<std::int32_t, CodecWindow> windows_;  // by size
  HalfBuffers buffers_;
  GpuArray<std::byte> input_;
  GpuArray<float> pcm_;
  std::shared_ptr<void> host_input_, host_pcm_;  // pinned copies of them
  BlockingEvent done_;
  std::vector<Job> running_;
  std::int32_t running_size_ = 0;
  // By size and number of items, a power of two or the most.
  std::map<std::pair<std::int32_t, std::int32_t>, std::unique_ptr<DeviceGraph>> graphs_;
};

}  // namespace

std::unique_ptr<CodecDecoder> make_half_codec_decoder(const CodecConfig& config,
                                                      const Checkpoint& checkpoint,
                                                      Device& device) {
  CudaDevice& cuda = as_cuda(device);
  return std::make_unique<HalfCodecDecoder>(
      config, load_half_codec_weights(config, checkpoint, cuda), cuda);
}

HalfCodecMemory half_codec_memory(Device& device) {
  int bytes = 0;
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                    as_cuda(device).ordinal()),
             kWhere, "cudaDeviceGetAttribute");
  return {static_cast<std::size_t>(bytes), kHalfCodecSharedBytes};
}

}  // namespace higgs_rt
