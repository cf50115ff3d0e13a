// The C API: the program of c_program.c, and what C++ sees of versioned structs.
#include <cstring>
#include <future>

#include "api/support.h"
#include "check.h"
#include "higgs_rt/higgs_rt.h"

// Returns NULL, or what went wrong. Compiled as C.
extern "C" const char* higgs_c_program(const char* model_dir);

namespace higgs_rt::testing {
namespace {

TEST("a C program speaks by pull and by callback") {
  const char* fault = higgs_c_program(endless_model().c_str());
  if (fault != nullptr) report("c_program.c", 0, fault);
}

TEST("structs of older and newer callers are understood or refused") {
  higgs_runtime_config config;
  std::memset(&config, 0x55, sizeof config);
  higgs_runtime_config_init(&config, offsetof(higgs_runtime_config, max_batch));
  EXPECT_EQ(config.struct_size, offsetof(higgs_runtime_config, max_batch));
  EXPECT_EQ(config.max_batch, 0x55555555);
  EXPECT_EQ(std::string(config.device), "cpu");

  struct Newer {
    higgs_request request;
    std::int64_t unknown;
  } newer{};
  higgs_runtime* runtime = nullptr;
  const std::string model = endless_model();
  config.model_dir = model.c_str();
  config.num_threads = 1;
  EXPECT_EQ(higgs_runtime_load(&config, &runtime), HIGGS_OK);
  REQUIRE(runtime != nullptr);
  const std::int32_t ids[] = {1, 2, 3};
  const higgs_segment segment{HIGGS_SEGMENT_TEXT, 3, ids, nullptr};
  higgs_request_init(&newer.request, sizeof newer);
  newer.request.prompt = &segment;
  newer.request.num_segments = 1;
  newer.request.max_columns = 12;
  higgs_stream* stream = nullptr;
  EXPECT_EQ(higgs_submit(runtime, &newer.request, &stream), HIGGS_OK);
  higgs_stream_free(stream);
  newer.unknown = 1;
  EXPECT_EQ(higgs_submit(runtime, &newer.request, &stream), HIGGS_UNSUPPORTED);
  EXPECT(stream == nullptr);
  EXPECT(std::strstr(higgs_last_error(), "older than its caller") != nullptr);
  newer.request.struct_size = 0;
  EXPECT_EQ(higgs_submit(runtime, &newer.request, &stream), HIGGS_INVALID_ARGUMENT);
  EXPECT_EQ(higgs_submit(runtime, nullptr, &stream), HIGGS_INVALID_ARGUMENT);
  EXPECT_EQ(higgs_submit(nullptr, &newer.request, &stream), HIGGS_INVALID_ARGUMENT);
  higgs_runtime_free(runtime);
}

}  // namespace
}  // namespace higgs_rt::testing
