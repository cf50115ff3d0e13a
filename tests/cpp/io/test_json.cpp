#include "check.h"
#include "io/json.h"
#include "io/json_object.h"

using namespace higgs_rt;

namespace {

Json parse(const std::string& text) { return Json::parse(text, "test"); }
std::string parsed_text(const std::string& text) { return parse(text).string_value(); }

}  // namespace

TEST("json: values of every type") {
  const Json json = parse(R"( {"a": [1, -2.5e3, true, false, null], "b": {"c": "x"}, "n": 7} )");
  REQUIRE(json.is_object());
  EXPECT_EQ(json.keys().size(), 3u);
  const auto& list = json.find("a")->items();
  REQUIRE(list.size() == 5);
  EXPECT(list[0].type() == Json::Type::kInteger);
  EXPECT_EQ(list[0].integer_value(), 1);
  EXPECT_EQ(list[0].number_value(), 1.0);
  EXPECT(list[1].type() == Json::Type::kNumber);
  EXPECT_EQ(list[1].number_value(), -2500.0);
  EXPECT(list[2].bool_value());
  EXPECT(!list[3].bool_value());
  EXPECT(list[4].is_null());
  EXPECT_EQ(json.find("b")->find("c")->string_value(), "x");
  EXPECT(json.find("missing") == nullptr);
}

TEST("json: integers beyond int64 become numbers") {
  EXPECT_EQ(parse("9223372036854775807").integer_value(), INT64_MAX);
  EXPECT(parse("9223372036854775808").type() == Json::Type::kNumber);
  EXPECT(parse("1e2").type() == Json::Type::kNumber);
}

TEST("json: escapes, surrogate pairs and raw UTF-8") {
  EXPECT_EQ(parsed_text(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  EXPECT_EQ(parsed_text(R"("\u0041\u00e9\u20ac\ud83d\ude00")"),
            "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  EXPECT_EQ(parsed_text("\"\xc3\xa9\""), "\xc3\xa9");
}

TEST("json: malformed text is refused with its byte offset") {
  const auto refused = [](const std::string& text, const std::string& part) {
    EXPECT_THROWS(parse(text), part);
  };
  refused("", "[test] expected a value, got the end at byte 0");
  refused("{\"a\": 1,}", "a string as key at byte 8");
  refused("[1 2]", "',' or ']' at byte 3");
  refused("{\"a\" 1}", "':'");
  refused("[1] x", "the end at byte 4");
  refused("{\"a\": 1, \"a\": 2}", "each key once, got \"a\"");
  refused("01", "leading zero");
  refused("-", "a value");
  refused("1.", "a digit");
  refused("1e", "a digit");
  refused("1e999", "fp64");
  refused("tru", "a value");
  refused("nul", "a value");
  refused("\"abc", "'\"'");
  refused("\"a\nb\"", "control character");
  refused(R"("\x")", "an escape");
  refused(R"("\u12g4")", "four hexadecimal digits");
  refused(R"("\ud83d")", "second half");
  refused(R"("\ude00")", "lone second half");
  refused(std::string(100, '['), "at most 64 nested");
  refused("\"\\", "an escape");
}

TEST("json object: fields are typed and errors name them") {
  const JsonObject object(
      parse(R"({"n": 3, "x": 0.5, "b": true, "zero": 0, "s": "t", "l": [1, 2], "nil": null,
                "o": {"k": -1}, "big": 4294967296})"),
      "config.json");
  EXPECT_EQ(object.positive("n"), 3);
  EXPECT_EQ(object.number("x"), 0.5);
  EXPECT_EQ(object.number("n"), 3.0);
  EXPECT(object.boolean("b"));
  EXPECT(!object.boolean("zero"));
  EXPECT_EQ(object.text("s"), "t");
  EXPECT_EQ(object.integers("l").size(), 2u);
  EXPECT_EQ(object.integer("nil", 9), 9);
  EXPECT_EQ(object.integer("absent", 9), 9);
  EXPECT(!object.has("nil"));
  const auto refused = [](auto&& body, const std::string& part) { EXPECT_THROWS(body(), part); };
  refused([&] { object.positive("absent"); }, "[config.json:absent] expected an integer, got no");
  refused([&] { object.positive("zero"); }, "[config.json:zero] expected an integer >= 1, got 0");
  refused([&] { object.integer("big"); }, "[config.json:big] expected an integer, got 4294967296");
  refused([&] { object.integer("x"); }, "got 0.5");
  refused([&] { object.number("s"); }, "expected a number, got \"t\"");
  refused([&] { object.boolean("n"); }, "expected true or false, got 3");
  refused([&] { object.integers("s"); }, "an array of integers");
  refused([&] { object.object("s"); }, "an object");
  refused([&] { object.object("o").positive("k"); }, "[config.json:o:k]");
  refused([&] { object.require_flag("b", false); }, "[config.json:b] expected false, got true");
  refused([&] { object.require_text("s", "u"); }, "expected \"u\", got \"t\"");
}
