#include <bit>
#include <cmath>
#include <limits>

#include "check.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/tensor.h"

using namespace higgs_rt;

TEST("bf16 rounds to nearest, ties to even, and keeps infinities and NaN") {
  const auto bits = [](float value) { return to_bf16(value).bits; };
  const auto number = [](std::uint32_t pattern) { return std::bit_cast<float>(pattern); };
  EXPECT_EQ(bits(1.0f), 0x3f80);
  EXPECT_EQ(bits(number(0x3f807fff)), 0x3f80);
  EXPECT_EQ(bits(number(0x3f808000)), 0x3f80);  // tie, even below
  EXPECT_EQ(bits(number(0x3f808001)), 0x3f81);
  EXPECT_EQ(bits(number(0x3f818000)), 0x3f82);  // tie, even above
  EXPECT_EQ(bits(-0.0f), 0x8000);
  EXPECT_EQ(bits(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(bits(-std::numeric_limits<float>::infinity()), 0xff80);
  EXPECT(std::isnan(to_float(to_bf16(number(0x7f800001)))));
  for (std::uint32_t pattern = 0; pattern < 0x7f80; ++pattern) {
    const BF16 value{static_cast<std::uint16_t>(pattern)};
    EXPECT_EQ(to_bf16(to_float(value)).bits, pattern);
  }
}

TEST("element types have sizes and names") {
  EXPECT_EQ(size_of(DType::kF32), 4u);
  EXPECT_EQ(size_of(DType::kBF16), 2u);
  EXPECT_EQ(size_of(DType::kU8), 1u);
  EXPECT_EQ(std::string(name_of(DType::kBF16)), "bf16");
  EXPECT_THROWS(size_of(static_cast<DType>(99)), "[dtype] unknown element type 99");
}

TEST("tensors own aligned memory and views slice it") {
  const auto device = make_cpu_device();
  const Tensor tensor(*device, DType::kF32, {4, 3});
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.view().data) % 256, 0u);
  EXPECT_EQ(tensor.view().size(), 12);
  EXPECT_EQ(tensor.view().bytes(), 48u);
  for (int i = 0; i < 12; ++i) tensor.as<float>()[i] = static_cast<float>(i);
  const TensorView middle = tensor.view().slice(1, 2);
  EXPECT_EQ(to_string(middle.shape), "[2, 3]");
  EXPECT_EQ(middle.as<float>()[0], 3.0f);
  EXPECT_EQ(tensor.view().slice(4, 0).size(), 0);
  EXPECT_EQ(tensor.view().first(2).size(), 6);
  EXPECT_THROWS(tensor.view().slice(3, 2), "[tensor] expected a range within [4, 3], got 3 + 2");
  EXPECT_THROWS(tensor.view().slice(-1, 2), "expected a range within");
  EXPECT_THROWS(tensor.as<std::int32_t>(), "[tensor] expected element type i32, got f32");
  const Tensor empty(*device, DType::kBF16, {0, 8});
  EXPECT_EQ(empty.view().bytes(), 0u);
  EXPECT_EQ(to_string(Shape{}), "[]");
}

TEST("devices are made by name") {
  EXPECT_EQ(make_device("cpu")->name(), "cpu");
  EXPECT_THROWS(make_device("gpu"), "[device] expected cpu, cuda or cuda:N, got \"gpu\"");
  EXPECT_THROWS(make_device("cuda:x"), "got \"cuda:x\"");
  EXPECT_THROWS(make_device("cuda:"), "expected cpu, cuda or cuda:N");
  const std::string message = testing::thrown([] { make_device("cuda:7"); });
  EXPECT(message.find("[device]") == 0 || message.find("[cuda]") == 0);
}

TEST("copies to and from the cpu device") {
  const auto device = make_cpu_device();
  const std::shared_ptr<void> memory = device->allocate(8);
  const double in = 2.5;
  double out = 0.0;
  device->copy_from_host(memory.get(), &in, sizeof(in));
  device->copy_to_host(&out, memory.get(), sizeof(out));
  device->synchronize();
  EXPECT_EQ(out, 2.5);
  device->copy_from_host(nullptr, nullptr, 0);
}
