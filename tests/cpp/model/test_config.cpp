#include "check.h"
#include "model/config.h"
#include "model/edited_checkpoint.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

const std::string kGolden = std::string(HIGGS_RT_GOLDEN_DIR) + "/lm/";

void expect_refused(const std::string& layout, const std::string& from, const std::string& to,
                    const std::string& part) {
  const TemporaryDirectory directory;
  directory.write("config.json", replaced(read_text(kGolden + layout + "/config.json"), from, to));
  EXPECT_THROWS(read_model_config(directory.path()), part);
}

}  // namespace

TEST("config: both layouts are read") {
  const ModelConfig ours = read_model_config(kGolden + "transformers");
  EXPECT(ours.layout == Layout::kTransformers);
  EXPECT_EQ(ours.hidden_size, 32);
  EXPECT_EQ(ours.head_dim, 8);
  EXPECT_EQ(ours.num_kv_heads, 2);
  EXPECT_EQ(ours.codebook_vocab, 32);
  EXPECT_EQ(ours.max_positions, 131072);
  EXPECT(ours.rope.scaled);
  EXPECT_EQ(ours.rope.original_positions, 1024.0);
  const ModelConfig original = read_model_config(kGolden + "original");
  EXPECT(original.layout == Layout::kOriginal);
  EXPECT_EQ(original.num_layers, 3);
  EXPECT_EQ(original.audio_ffn, 56);
  EXPECT_EQ(original.codebook_vocab, 32);
  EXPECT_EQ(original.max_positions, 131072);
  EXPECT_EQ(original.rope.low_freq_factor, 1.0);
}

TEST("config: what is malformed is refused by its field") {
  const std::string layout = "transformers";
  expect_refused(layout, "\"higgs_audio_v2\"", "\"llama\"",
                 "[config.json:model_type] expected \"higgs_audio_v2\" or");
  expect_refused(layout, "\"hidden_size\": 32", "\"hidden_size\": 0", "[config.json:hidden_size]");
  expect_refused(layout, "\"hidden_size\": 32", "\"hidden_size\": \"x\"", "got \"x\"");
  expect_refused(layout, "\"vocab_size\"", "\"vocabulary\"",
                 ":vocab_size] expected an integer, got no");
  expect_refused(layout, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3",
                 ":num_key_value_heads] expected a divisor");
  expect_refused(layout, "\"head_dim\": 8", "\"head_dim\": 7", ":head_dim] expected an even");
  expect_refused(layout, "\"silu\"", "\"gelu\"", ":hidden_act] expected \"silu\", got \"gelu\"");
  expect_refused(layout, "\"attention_bias\": false", "\"attention_bias\": true",
                 ":attention_bias] expected false");
  expect_refused(layout, "\"codebook_size\": 32", "\"codebook_size\": 30",
                 ":audio_stream_bos_id] expected 28");
  expect_refused(layout, "\"audio_stream_eos_id\": 31", "\"audio_stream_eos_id\": 30",
                 ":audio_stream_eos_id] expected 31");
  expect_refused(layout, "\"llama3\"", "\"yarn\"",
                 "[config.json:rope_parameters:rope_type] expected \"llama3\"");
  expect_refused(layout, "\"high_freq_factor\": 0.5", "\"high_freq_factor\": 0.1",
                 ":high_freq_factor] expected a number above");
  expect_refused(layout, "{", "{,", "a string as key at byte 1");
  const TemporaryDirectory empty;
  EXPECT_THROWS(read_model_config(empty.path()), "config.json] expected a readable file");
}

TEST("config: parts of the original that this runtime does not have are refused by name") {
  const std::string layout = "original";
  expect_refused(layout, "\"dual_ffn_fast_forward\"", "\"stack\"",
                 "[config.json:audio_adapter_type] expected \"dual_ffn_fast_forward\"");
  expect_refused(layout, "  2\n ]", "  1\n ]", ":audio_dual_ffn_layers] expected every layer 0..2");
  expect_refused(layout, "  2\n ]", "  2,\n  3\n ]",
                 ":audio_dual_ffn_layers] expected only layers");
  expect_refused(layout, "\"use_delay_pattern\": true", "\"use_delay_pattern\": false",
                 ":use_delay_pattern] expected true");
  expect_refused(layout, "\"use_delay_pattern\": true", "\"nothing\": 1",
                 ":use_delay_pattern] expected true, got no such field");
  expect_refused(layout, "\"encode_whisper_embed\": false", "\"encode_whisper_embed\": true",
                 "Whisper tower");
  expect_refused(layout, "\"audio_embed_avg\": false", "\"audio_embed_avg\": true",
                 ":audio_embed_avg] expected false");
  expect_refused(layout, "\"use_rq_transformer\": false", "\"use_rq_transformer\": true",
                 ":use_rq_transformer]");
  expect_refused(layout, "\"use_audio_out_self_attention\": 0",
                 "\"use_audio_out_self_attention\": 1", ":use_audio_out_self_attention]");
  expect_refused(layout, "\"use_audio_out_embed_projector\": false",
                 "\"use_audio_out_embed_projector\": true", ":use_audio_out_embed_projector]");
  expect_refused(layout, "\"audio_decoder_proj_num_layers\": 0",
                 "\"audio_decoder_proj_num_layers\": 2", ":audio_decoder_proj_num_layers]");
  expect_refused(layout, "\"audio_ffn_hidden_size\": 48", "\"audio_ffn_hidden_size\": 64",
                 ":audio_ffn_hidden_size] expected 48");
  expect_refused(layout, "\"audio_stream_bos_id\": 30", "\"audio_stream_bos_id\": 1024",
                 ":audio_stream_bos_id] expected 30");
  expect_refused(layout, "\"text_config\"", "\"words_config\"",
                 ":text_config] expected an object, got no such field");
}
