// The hash of a checkpoint is the one that build_engine writes into a manifest.
#include <filesystem>

#include "check.h"
#include "io/checkpoint_hash.h"
#include "io/temporary_directory.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

std::string golden(const std::string& layout) {
  return std::string(HIGGS_RT_GOLDEN_DIR) + "/lm/" + layout;
}

}  // namespace

TEST("checkpoint hash: equal to build_engine's for one file and for several") {
  EXPECT_EQ(checkpoint_hash(Checkpoint(golden("transformers"))), "fnv1a64:194ac62709d70d41");
  EXPECT_EQ(checkpoint_hash(Checkpoint(golden("original"))), "fnv1a64:f4268c22285f72f9");
}

TEST("checkpoint hash: changes with configuration, names, values and size") {
  const TemporaryDirectory directory;
  const auto hash_of = [&](const std::string& config, const std::string& name,
                           const std::string& data) {
    directory.write("config.json", config);
    const std::string header = "{\"" + name + "\":{\"dtype\":\"U8\",\"shape\":[" +
                               std::to_string(data.size()) + "],\"data_offsets\":[0," +
                               std::to_string(data.size()) + "]}}";
    directory.write("model.safetensors", safetensors_bytes(header, data));
    return checkpoint_hash(Checkpoint(directory.path()));
  };
  const std::string data(300, 'x');
  const std::string base = hash_of("{}", "a", data);
  EXPECT_EQ(hash_of("{}", "a", data), base);
  EXPECT(hash_of("{ }", "a", data) != base);
  EXPECT(hash_of("{}", "b", data) != base);
  EXPECT(hash_of("{}", "a", data + "x") != base);
  for (const std::size_t at : {0u, 63u, 150u, 213u, 236u, 299u}) {
    std::string changed = data;
    changed[at] = 'y';
    EXPECT(hash_of("{}", "a", changed) != base);
  }
  std::string unseen = data;  // a sample does not see every byte
  unseen[100] = 'y';
  EXPECT_EQ(hash_of("{}", "a", unseen), base);
  std::filesystem::remove(directory.path() + "/config.json");
  EXPECT_THROWS(checkpoint_hash(Checkpoint(directory.path())), "config.json");
}
