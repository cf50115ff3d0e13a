#include <cstring>

#include "check.h"
#include "io/checkpoint.h"
#include "io/temporary_directory.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

const char* const kGoodHeader = R"({"__metadata__":{"format":"pt"},)"
                                R"("a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                                R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[16,20]}})";
const std::string kGoodData = floats({1, 2, 3, 4}) + std::string("\x80\x3f\x00\x40", 4);

void expect_refused(const std::string& bytes, const std::string& part) {
  const TemporaryDirectory directory;
  directory.write("model.safetensors", bytes);
  EXPECT_THROWS(Checkpoint(directory.path()), part);
}

void expect_header_refused(const std::string& header, const std::string& data,
                           const std::string& part) {
  expect_refused(safetensors_bytes(header, data), part);
}

}  // namespace

TEST("checkpoint: a single file gives fp32 and bf16 tensors") {
  const TemporaryDirectory directory;
  directory.write("model.safetensors", safetensors_bytes(kGoodHeader, kGoodData));
  const Checkpoint checkpoint(directory.path());
  EXPECT_EQ(checkpoint.names().size(), 2u);
  const TensorView a = checkpoint.tensor("a", {2, 2});
  EXPECT_EQ(a.as<float>()[3], 4.0f);
  const TensorView b = checkpoint.tensor("b", {2});
  EXPECT_EQ(to_float(b.as<BF16>()[0]), 1.0f);
  EXPECT_EQ(to_float(b.as<BF16>()[1]), 2.0f);
  EXPECT_EQ(checkpoint.place("a"), "model.safetensors:a");
  EXPECT_THROWS(checkpoint.tensor("c", {2}), "expected tensor c, got none");
  EXPECT_THROWS(checkpoint.tensor("a", {4}),
                "[model.safetensors:a] expected shape [4], got [2, 2]");
}

TEST("checkpoint: data at any alignment is readable") {
  for (std::size_t pad = 0; pad < 8; ++pad) {
    const TemporaryDirectory directory;
    directory.write("model.safetensors",
                    safetensors_bytes(kGoodHeader + std::string(pad, ' '), kGoodData));
    const Checkpoint checkpoint(directory.path());
    const TensorView a = checkpoint.tensor("a", {2, 2});
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data) % 4, 0u);
    EXPECT_EQ(a.as<float>()[2], 3.0f);
    EXPECT_EQ(to_float(checkpoint.tensor("b", {2}).as<BF16>()[1]), 2.0f);
  }
}

TEST("checkpoint: other element types are refused where they are used, by name") {
  const TemporaryDirectory directory;
  directory.write("model.safetensors",
                  safetensors_bytes(R"({"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},)"
                                    R"("i":{"dtype":"I64","shape":[1],"data_offsets":[4,12]}})",
                                    std::string(12, '\0')));
  const Checkpoint checkpoint(directory.path());
  EXPECT_THROWS(checkpoint.tensor("h", {2}),
                "[model.safetensors:h] expected dtype F32 or BF16, got F16");
  EXPECT_THROWS(checkpoint.tensor("i", {1}), "got I64");
}

TEST("safetensors: every truncation is refused") {
  const std::string whole = safetensors_bytes(kGoodHeader, kGoodData);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    expect_refused(whole.substr(0, size), "model.safetensors");
  }
  expect_refused(whole.substr(0, whole.size() - 1), "(truncated?)");
  expect_refused(whole + "x", "expected a file of");
}

TEST("safetensors: malformed headers are refused, naming the tensor") {
  const std::string data(8, '\0');
  expect_refused(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "a header of at most");
  expect_refused(std::string("\0\0\0\0\0\0\0\1{}", 10), "a header of at most");
  expect_header_refused("[1]", "", "an object as header");
  expect_header_refused("{\"a\": 3}", "", "model.safetensors:a] expected an object, got 3");
  expect_header_refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                        R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                        data, "each key once, got \"a\"");
  expect_header_refused(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", data,
                        ":a] expected 12 bytes for F32 [3], got 8");
  expect_header_refused(R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", data,
                        ":a] expected a known dtype, got \"F31\"");
  expect_header_refused(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", data, "got none");
  expect_header_refused(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", data,
                        "a shape of integers >= 0");
  expect_header_refused(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", data, "a shape");
  expect_header_refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", data,
                        "data_offsets [begin, end]");
  expect_header_refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", data,
                        "data_offsets [begin, end]");
  expect_header_refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,80]}})", data,
                        ":a] expected data up to byte 80");
  expect_header_refused(
      R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})", data,
      ":a] expected");
  expect_header_refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                        R"("b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
                        std::string(6, '\0'), ":b] expected data from byte");
  expect_header_refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", data, "(gap)");
}

TEST("checkpoint: shards by their index, beside a consolidated copy that is not read") {
  const TemporaryDirectory directory;
  const auto one = [](const char* name) {
    return safetensors_bytes(
        "{\"" + std::string(name) + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
        floats({5}));
  };
  directory.write("s1.safetensors", one("a"));
  directory.write("s2.safetensors", one("b"));
  directory.write("model.safetensors", one("consolidated"));
  const std::string index = "model.safetensors.index.json";
  directory.write(index, R"({"weight_map":{"a":"s1.safetensors","b":"s2.safetensors"}})");
  const Checkpoint checkpoint(directory.path());
  EXPECT_EQ(checkpoint.names().size(), 2u);
  EXPECT_EQ(checkpoint.place("b"), "s2.safetensors:b");

  directory.write(index, R"({"weight_map":{"a":"s1.safetensors","b":"s3.safetensors"}})");
  EXPECT_THROWS(Checkpoint(directory.path()), "s3.safetensors] expected a readable file");
  directory.write(index, R"({"weight_map":{"a":"s1.safetensors","b":"s1.safetensors"}})");
  EXPECT_THROWS(Checkpoint(directory.path()), "expected tensor b in s1.safetensors");
  directory.write(index, R"({"weight_map":{"a":"s2.safetensors","b":"s1.safetensors"}})");
  EXPECT_THROWS(Checkpoint(directory.path()), "expected tensor a in s2.safetensors, got it in");
  directory.write(index, R"({"weight_map":{"a":"../s1.safetensors"}})");
  EXPECT_THROWS(Checkpoint(directory.path()), "without folders");
  directory.write(index, R"({"metadata":{}})");
  EXPECT_THROWS(Checkpoint(directory.path()), "index.json:weight_map] expected an object");
}

TEST("checkpoint: loose files, and directories without any") {
  const TemporaryDirectory directory;
  EXPECT_THROWS(Checkpoint(directory.path()), "got no safetensors file");
  EXPECT_THROWS(Checkpoint(directory.path() + "/none"), "expected a directory");
  directory.write("decoder.safetensors", safetensors_bytes(kGoodHeader, kGoodData));
  EXPECT(Checkpoint(directory.path()).contains("a"));
  directory.write("other.safetensors", safetensors_bytes(kGoodHeader, kGoodData));
  EXPECT_THROWS(Checkpoint(directory.path()), "each tensor once, got a also in");
  directory.write("model.safetensors", "");
  EXPECT_THROWS(Checkpoint(directory.path()), "got 0 bytes (truncated?)");
}
