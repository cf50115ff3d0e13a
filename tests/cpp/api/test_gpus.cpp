// What a runtime with a codec does on a GPU beside its own work: callbacks that decode, and other
// GPUs, which it must leave alone.
#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>

#include "api/support.h"
#include "check.h"
#include "few.h"
#include "io/temporary_directory.h"
#include "require_cuda.h"

namespace higgs_rt::testing {
namespace {

// The demo voice's shapes, whose codec decodes batches on a GPU.
std::string demo_model() {
  static const TemporaryDirectory directory;
  static const bool written = [] {
    RandomLmShape shape = demo_lm_shape();
    shape.endless = true;
    write_random_lm(directory.path(), shape, DType::kBF16, 21);
    write_random_codec(directory.path() + "/codec", demo_codec_shape(), 22);
    return true;
  }();
  static_cast<void>(written);
  return directory.path();
}

RuntimeConfig config_on(const std::string& device) {
  RuntimeConfig config = small_config(demo_model());
  config.device = device;
  return config;
}

Request waveform_request(std::int32_t max_columns, std::uint64_t seed) {
  Request request = speech_request(max_columns, seed, true);
  request.prompt[0].ids = {1, 2, 3, 250};
  return request;
}

Request frames_request(std::int32_t max_columns, std::uint64_t seed) {
  Request request = waveform_request(max_columns, seed);
  request.output = OutputKind::kFrames;
  request.first_chunk_frames = request.max_chunk_frames = 4;
  return request;
}

// Whether this process has a context on GPU 0; by the driver, which opens none to answer.
bool first_gpu_is_open() {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW);
  REQUIRE(driver != nullptr);
  using GetState = int (*)(int device, unsigned* flags, int* active);
  const auto get_state = reinterpret_cast<GetState>(dlsym(driver, "cuDevicePrimaryCtxGetState"));
  REQUIRE(get_state != nullptr);
  unsigned flags = 0;
  int active = 0;
  EXPECT_EQ(get_state(0, &flags, &active), 0);
  return active != 0;
}

constexpr const char* kOtherGpu = "HIGGS_RT_TEST_OTHER_GPU";

void use_second_gpu() {
  auto runtime = Runtime::load(config_on("cuda:1"));
  EXPECT(!first_gpu_is_open());
  EXPECT(!read(runtime->submit(waveform_request(60, 1))).pcm.empty());
  EXPECT(!first_gpu_is_open());
  const std::int32_t books = runtime->info().num_codebooks;
  std::thread([&] {
    EXPECT(!runtime->decode_frames(std::vector<std::int32_t>(3 * books, 5), 3).empty());
  }).join();
  EXPECT(!first_gpu_is_open());
  std::thread([&] { runtime.reset(); }).join();
  EXPECT(!first_gpu_is_open());
}

}  // namespace

TEST("cuda: decode_frames may be called in a callback while other streams are decoded") {
  require_cuda();
  const auto runtime = Runtime::load(config_on("cuda"));
  const std::int32_t columns = few_only() ? 40 : 120;
  std::vector<float> heard;
  std::vector<std::int32_t> codes;  // of all frames, [num_frames][num_codebooks]
  std::atomic<bool> ended = false;
  Stream frames = runtime->submit(frames_request(columns, 7));
  frames.on_chunk([&](const Chunk& chunk) {
    if (chunk.num_frames > 0) {
      const auto pcm = runtime->decode_frames(chunk.frames, chunk.num_frames);
      heard.insert(heard.end(), pcm.begin(), pcm.end());
    }
    ended = chunk.last;
  });
  std::vector<Stream> others;
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    others.push_back(runtime->submit(waveform_request(columns, seed)));
  }
  for (Stream& other : others) EXPECT(!read(other).pcm.empty());
  while (!ended) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  // The same chunk by chunk, from outside.
  std::vector<float> expected;
  Stream again = runtime->submit(frames_request(columns, 7));
  Chunk chunk;
  while (again.next(chunk)) {
    if (chunk.num_frames == 0) continue;
    const auto pcm = runtime->decode_frames(chunk.frames, chunk.num_frames);
    expected.insert(expected.end(), pcm.begin(), pcm.end());
  }
  EXPECT(!expected.empty());
  EXPECT(heard == expected);
}

// In a process of its own, as the other cases open the first GPU.
TEST("cuda: a runtime on the second GPU of a process opens nothing on the first") {
  if (std::getenv(kOtherGpu) != nullptr) return use_second_gpu();
  const std::size_t gpus = require_all_cuda().size();
  if (gpus < 2 || few_only()) {
    std::cout << "  not looked at: " << gpus << " GPU(s)\n";
    return;
  }
  std::array<char, 4096> path{};
  REQUIRE(::readlink("/proc/self/exe", path.data(), path.size() - 1) > 0);
  const std::string command = std::string(kOtherGpu) + "=1 '" + path.data() +
                              "' 'a runtime on the second GPU of a process'";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace higgs_rt::testing
