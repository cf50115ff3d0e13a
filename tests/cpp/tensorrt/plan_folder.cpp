#include "tensorrt/plan_folder.h"

#include <sstream>

#include "core/check.h"
#include "io/checkpoint_hash.h"
#include "model/config.h"
#include "model/weights.h"
#include "tensorrt/fake_network.h"
#include "tensorrt/fake_plan.h"

namespace higgs_rt::testing {

namespace {

std::string quoted(const std::string& text) { return '"' + text + '"'; }

std::string binding(const std::string& name, bool input, const char* dtype,
                    const std::string& shape) {
  return "{\"name\": " + quoted(name) + ", \"io\": " + quoted(input ? "input" : "output") +
         ", \"dtype\": " + quoted(dtype) + ", \"shape\": [" + shape + "]}";
}

std::string bindings(const ModelConfig& model, const FolderOptions& options) {
  const std::string books = std::to_string(model.num_codebooks);
  const std::string hidden = std::to_string(model.hidden_size);
  const std::string cache = "\"B\", " + std::to_string(model.num_kv_heads) + ", " +
                            std::to_string(options.max_seq_len) + ", " +
                            std::to_string(model.head_dim);
  std::string text = binding("text_ids", true, "i32", "\"Nt\"");
  const auto add = [&](const std::string& name, bool input, const char* dtype,
                       const std::string& shape) {
    text += ",\n   " + binding(name, input, dtype, shape);
  };
  add("audio_ids", true, "i32", "\"Na\"");
  add("table_rows", true, "f32", "\"P\", " + hidden);
  add("columns", true, "i32", "\"C\", " + books);
  add("last_columns", true, "i32", "\"R\", " + books);
  add("row_index", true, "i32", "\"B\", \"S\"");
  add("position", true, "i32", "\"B\", \"S\"");
  add("text_place", true, "i32", "\"Nt\"");
  add("audio_place", true, "i32", "\"Na\"");
  add("write_index", true, "i32", "\"B\"");
  add("kv_length", true, "i32", "\"B\"");
  add("logit_rows", true, "i32", "\"L\"");
  for (std::int32_t i = 0; i < model.num_layers; ++i) {
    for (const std::string which : {"k_", "v_"}) {
      add("past_" + which + std::to_string(i), true, "f32", cache);
      add("present_" + which + std::to_string(i), false, "f32", cache);
    }
  }
  add("logits", false, "f32", "\"L\", " + books + ", " + std::to_string(model.codebook_vocab));
  return text;
}

std::string weight_inputs(const ModelConfig& model, const FolderOptions& options) {
  if (!options.weights_are_inputs) return "";
  const auto device = make_cpu_device();
  ModelWeights weights =
      load_weights(model, std::make_shared<const Checkpoint>(options.model_dir), *device);
  std::string text;
  for (const auto& [name, view] : weight_names(weights)) {
    text += text.empty() ? "" : ", ";
    text += "{\"name\": " + quoted(name) +
            ", \"dtype\": \"f32\", \"shape\": " + to_string(view->shape) + "}";
  }
  return text;
}

std::string profiles(const FolderOptions& options) {
  const auto range = [](const char* name, std::int32_t least, std::int32_t most) {
    return quoted(name) + ": [" + std::to_string(least) + ", " + std::to_string(most) + ", " +
           std::to_string(most) + "]";
  };
  const std::int32_t rows = 2 * options.max_prefill;  // of a prefill call with two slots
  const std::int32_t slots = options.max_batch;
  return "{\"name\": \"prefill\", \"dims\": {" + range("B", 1, 2) + ", " +
         range("S", 1, options.max_prefill) + ", " + range("Nt", 1, rows) + ", " +
         range("Na", 0, rows) + ", " + range("P", 1, options.max_prompt_table) + ", " +
         range("C", 1, rows) + ", " + range("R", 1, slots) + ", " + range("L", 1, rows) +
         "}},\n  {\"name\": \"decode\", \"dims\": {" + range("B", 1, slots) + ", " +
         range("S", 1, 1) + ", " + range("Nt", 0, 0) + ", " + range("Na", 1, slots) + ", " +
         range("P", 1, 1) + ", " + range("C", slots, slots) + ", " + range("R", 1, slots) + ", " +
         range("L", 1, slots) + "}}";
}

std::string model_text(const ModelConfig& model) {
  std::ostringstream out;
  out << "{\"num_layers\": " << model.num_layers << ", \"hidden_size\": " << model.hidden_size
      << ", \"num_heads\": " << model.num_heads << ", \"num_kv_heads\": " << model.num_kv_heads
      << ", \"head_dim\": " << model.head_dim << ", \"text_ffn\": " << model.text_ffn
      << ", \"audio_ffn\": " << model.audio_ffn << ", \"text_vocab\": " << model.text_vocab
      << ", \"num_codebooks\": " << model.num_codebooks
      << ", \"codebook_vocab\": " << model.codebook_vocab << "}";
  return out.str();
}

}  // namespace

std::string golden_model(const std::string& layout) {
  return std::string(HIGGS_RT_GOLDEN_DIR) + "/lm/" + layout;
}

void write_plan_folder(const TemporaryDirectory& directory, const FolderOptions& options) {
  const ModelConfig model = read_model_config(options.model_dir);
  const std::string plan = FakePlanRuntime::kPlanText;
  const std::int64_t slot_bytes = std::int64_t{2} * model.num_layers * model.num_kv_heads *
                                  options.max_seq_len * model.head_dim * 4;
  std::ostringstream out;
  out << "{\"format_revision\": 1, \"tensor_revision\": 1, \"higgs_rt_version\": \"0.1.0\",\n"
      << " \"backend\": \"tensorrt\", \"backend_version\": \"10.16.1.11\",\n"
      << " \"targets\": [\"sm89\", \"sm90\"],\n \"decoder\": {\n  \"plan\": \"decoder.plan\", "
      << "\"plan_bytes\": " << plan.size() << ", \"network_hash\": \"fnv1a64:0\",\n"
      << "  \"checkpoint_hash\": " << quoted(checkpoint_hash(Checkpoint(options.model_dir)))
      << ",\n  \"layout\": " << quoted(name_of(model.layout))
      << ", \"weight_dtype\": \"f32\", \"num_parameters\": 5771283456,\n"
      << "  \"precision\": \"fp32\", \"weights\": "
      << quoted(options.weights_are_inputs ? "inputs" : "constants")
      << ", \"attention\": \"mask\",\n  \"model\": " << model_text(model)
      << ",\n  \"limits\": {\"max_batch\": " << options.max_batch
      << ", \"max_seq_len\": " << options.max_seq_len
      << ", \"max_prefill\": " << options.max_prefill << ", \"max_prefill_batch\": 2"
      << ", \"max_prompt_table\": " << options.max_prompt_table << "},\n"
      << "  \"kv\": {\"dtype\": \"f32\", \"capacity\": " << options.max_seq_len
      << ", \"slot_bytes\": " << slot_bytes << "},\n  \"profiles\": [" << profiles(options)
      << "],\n  \"bindings\": [" << bindings(model, options) << "],\n  \"weight_inputs\": ["
      << weight_inputs(model, options) << "]}}\n";
  std::string text = out.str();
  for (const auto& [from, to] : options.edits) {
    const auto at = text.find(from);
    check_internal(at != std::string::npos, "plan_folder", "expected a manifest with ", from);
    text.replace(at, from.size(), to);
  }
  directory.write("manifest.json", text);
  directory.write("decoder.plan", plan);
}

}  // namespace higgs_rt::testing
