#include "base/json.h"

#include "base/error.h"
#include "support/test_data.h"

namespace nibble {
namespace {

TEST(JsonTest, ParsesValues) {
  const Json value = parse_json(R"({"a": [1, 2.5, "x"], "b": {"c": null}})", "test");
  EXPECT_EQ(value["a"][1], 2.5);
  EXPECT_TRUE(value["b"]["c"].is_null());
}

TEST(JsonTest, RefusesDuplicateKeysAtAnyLevel) {
  EXPECT_ERROR(parse_json(R"({"a": 1, "a": 2})", "cfg"), ErrorKind::kCorrupt, "duplicate key 'a'");
  EXPECT_ERROR(parse_json(R"({"x": [{"k": 1, "k": 1}]})", "cfg"), ErrorKind::kCorrupt, "cfg");
  EXPECT_NO_THROW(parse_json(R"([{"k": 1}, {"k": 1}, {"n": {"k": 2}}])", "cfg"));
}

TEST(JsonTest, RefusesDeepNestingWithoutOverflowingTheStack) {
  const std::string deep(1'000'000, '[');
  EXPECT_ERROR(parse_json(deep, "deep"), ErrorKind::kCorrupt, "nested deeper than 64");
  EXPECT_NO_THROW(parse_json(std::string(64, '[') + std::string(64, ']'), "edge"));
  EXPECT_ERROR(parse_json(std::string(65, '[') + std::string(65, ']'), "edge"), ErrorKind::kCorrupt,
               "nested");
}

TEST(JsonTest, RefusesBadTextAndSize) {
  EXPECT_ERROR(parse_json("{\"a\": ", "cut"), ErrorKind::kCorrupt, "cut: not valid JSON");
  EXPECT_ERROR(parse_json("", "empty"), ErrorKind::kCorrupt, "not valid JSON");
  EXPECT_ERROR(parse_json("\"\xff\xfe\"", "utf"), ErrorKind::kCorrupt, "not valid JSON");
  EXPECT_ERROR(parse_json("[1,2,3]", "long", {.max_bytes = 3}), ErrorKind::kCorrupt, "limit of 3");
}

}  // namespace
}  // namespace nibble
