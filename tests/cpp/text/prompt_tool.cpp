// Answers questions about texts for tests/python/test_native_prompt.py, one JSON object a line:
//   prompt_tool TOKENIZER_JSON
//   {"op": "encode", "text": "…"}         -> {"ids": [...]}
//   {"op": "normalize", "text": "…"}      -> {"ids": [code points]}
//   {"op": "seconds", "text": "…"}        -> {"seconds": 5.2}
//   {"op": "written", "text": "…"}        -> {} or {"error": "…"}
//   {"op": "check", "text": "…"}          -> {} or {"error": "…"}
//   {"op": "prompt", "text", "scene", "placement", "convention",
//    "speakers": [{"transcript", "codes": [8 * n]} | {"description"}]}
//                                         -> {"segments": [[kind, id, id, …], …]}
#include <cstdio>
#include <iostream>
#include <string>

#include "io/json.h"
#include "text/prompt.h"
#include "text/text_rules.h"
#include "text/unicode.h"

namespace {

using namespace higgs_rt;  // NOLINT

std::string text_of(const Json& request, const char* name) {
  const Json* value = request.find(name);
  return value == nullptr ? "" : value->string_value();
}

template <class Values>
void print_list(const Values& values) {
  const char* comma = "";
  for (const auto value : values) {
    std::cout << comma << static_cast<std::int64_t>(value);
    comma = ",";
  }
}

PromptSpeaker speaker_of(const Json& one) {
  if (one.find("description") != nullptr) return Profile{text_of(one, "description")};
  Reference reference{{{}, 8}, text_of(one, "transcript")};
  for (const Json& code : one.find("codes")->items()) {
    reference.clip.codes.push_back(static_cast<std::int32_t>(code.integer_value()));
  }
  return reference;
}

void print_prompt(const Json& request, const Tokenizer& tokenizer) {
  PromptOptions options;
  options.scene = text_of(request, "scene");
  if (text_of(request, "placement") == "system") options.placement = Placement::kSystem;
  if (text_of(request, "convention") == "transformers") {
    options.convention = Convention::kTransformers;
  }
  for (const Json& one : request.find("speakers")->items()) {
    options.speakers.push_back(speaker_of(one));
  }
  const auto segments = build_prompt(text_of(request, "text"), options, tokenizer);
  std::cout << "{\"segments\":[";
  const char* comma = "";
  for (const PromptSegment& segment : segments) {
    std::cout << comma << '[' << static_cast<int>(segment.kind) << ',';
    print_list(segment.ids);
    std::cout << ']';
    comma = ",";
  }
  std::cout << "],\"positions\":" << num_positions(segments) << "}\n";
}

void answer(const Json& request, const Tokenizer& tokenizer) {
  const std::string op = text_of(request, "op");
  const std::string text = text_of(request, "text");
  if (op == "prompt") return print_prompt(request, tokenizer);
  const std::u32string decoded = decode_utf8(text, "text");
  if (op == "encode" || op == "normalize") {
    std::cout << "{\"ids\":[";
    if (op == "encode") print_list(tokenizer.encode(text));
    if (op == "normalize") print_list(normalize_text(decoded));
    std::cout << "]}\n";
  } else if (op == "seconds") {
    std::cout.precision(17);
    std::cout << "{\"seconds\":" << estimated_seconds(decoded) << "}\n";
  } else {
    if (op == "written") refuse_written_forms(decoded);
    if (op == "check") check_text(decoded, "text", 5000);
    std::cout << "{}\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: prompt_tool TOKENIZER_JSON < questions\n";
    return 2;
  }
  try {
    const Tokenizer tokenizer = Tokenizer::load(argv[1]);
    for (std::string line; std::getline(std::cin, line);) {
      try {
        answer(Json::parse(line, "question"), tokenizer);
      } catch (const Error& error) {
        // Messages hold no line breaks; quotes would end the string.
        std::string message = error.what();
        for (char& c : message) {
          if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20) c = '\'';
        }
        std::cout << "{\"error\":\"" << message << "\"}\n";
      }
    }
  } catch (const Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
