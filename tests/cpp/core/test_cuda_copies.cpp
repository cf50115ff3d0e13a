// Copies between the GPU and pinned memory: small ones by a kernel, others by the copy engine, all
// in order with each other. Needs a build with CUDA and a GPU.
#include <cstring>
#include <random>

#include "check.h"
#include "core/device.h"
#include "higgs_rt/error.h"

using namespace higgs_rt;

namespace {

std::unique_ptr<Device> gpu_or_skip() {
  try {
    return make_cuda_device(0);
  } catch (const Error& error) {
    SKIP(error.what());
  }
}

constexpr std::size_t kRoom = std::size_t{1} << 20;

// Whether `bytes` from pinned[from] come back at pinned[to] by way of device[at], and nothing else
// was touched.
bool goes_round(Device& device, std::size_t bytes, std::size_t from, std::size_t at,
                std::size_t to) {
  const auto memory = device.allocate(kRoom);
  const auto source = device.allocate_pinned(kRoom), result = device.allocate_pinned(kRoom);
  auto* sent = static_cast<unsigned char*>(source.get());
  auto* got = static_cast<unsigned char*>(result.get());
  std::mt19937 random(static_cast<unsigned>(bytes + from));
  for (std::size_t i = 0; i < kRoom; ++i) sent[i] = static_cast<unsigned char>(random());
  std::memset(got, 0xAB, kRoom);
  const std::string mark(kRoom, '\x5C');
  device.copy_from_host(memory.get(), mark.data(), kRoom);
  auto* there = static_cast<unsigned char*>(memory.get());
  device.copy_from_host(there + at, sent + from, bytes);
  device.copy_to_pinned(got + to, there + at, bytes);
  std::string all(kRoom, '\0');
  device.copy_to_host(all.data(), memory.get(), kRoom);  // waits for the others too
  bool same = std::memcmp(got + to, sent + from, bytes) == 0;
  for (std::size_t i = 0; i < kRoom; ++i) {
    if (i < at || i >= at + bytes) same = same && all[i] == '\x5C';
    if (i < to || i >= to + bytes) same = same && got[i] == 0xAB;
  }
  return same;
}

}  // namespace

TEST("cuda copies of any size and alignment arrive, and touch nothing else") {
  const auto device = gpu_or_skip();
  for (const std::size_t bytes : {0, 1, 3, 4, 12, 16, 20, 1000, 4096, 4100, 65532, 65536, 65540}) {
    EXPECT(goes_round(*device, bytes, 0, 0, 0));
    EXPECT(goes_round(*device, bytes, 16, 4, 64));
    EXPECT(goes_round(*device, bytes, 3, 8, 1));
  }
  EXPECT(goes_round(*device, kRoom, 0, 0, 0));
}

TEST("cuda copies keep their order") {
  const auto device = gpu_or_skip();
  const auto memory = device->allocate(64), pinned = device->allocate_pinned(64 * 100);
  const auto results = device->allocate_pinned(64 * 100);
  auto* values = static_cast<std::int32_t*>(pinned.get());
  auto* got = static_cast<std::int32_t*>(results.get());
  for (std::int32_t i = 0; i < 16 * 100; ++i) values[i] = i;
  for (std::size_t i = 0; i < 100; ++i) {  // each overwrites the last one's on the GPU
    device->copy_from_host(memory.get(), values + 16 * i, 64);
    device->copy_to_pinned(got + 16 * i, memory.get(), 64);
  }
  device->synchronize();
  EXPECT(std::memcmp(got, values, 64 * 100) == 0);
}

TEST("cuda copies from ordinary memory may lose their source at once") {
  const auto device = gpu_or_skip();
  const auto memory = device->allocate(4096);
  std::string source(4096, 'a'), back(4096, '\0');
  device->copy_from_host(memory.get(), source.data(), source.size());
  source.assign(4096, 'b');
  device->copy_to_host(back.data(), memory.get(), back.size());
  EXPECT_EQ(back, std::string(4096, 'a'));
}
