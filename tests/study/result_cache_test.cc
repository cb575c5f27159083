#include "study/result_cache.h"

#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "base/file.h"
#include "support/test_data.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

class ResultCacheTest : public testing::Test {
 protected:
  ResultCache cache() {
    return ResultCache(folder_ / "below" / "it", [this](LogLevel level, const std::string& line) {
      if (level == LogLevel::kWarning) warnings_.push_back(line);
    });
  }
  test::TempDir folder_;
  std::vector<std::string> warnings_;
};

TEST_F(ResultCacheTest, KeepsAResult) {
  EXPECT_FALSE(cache().find("a"));
  cache().put("a", {{"x", 1.5}});
  EXPECT_EQ(*cache().find("a"), (Json{{"x", 1.5}}));
  EXPECT_FALSE(cache().find("b"));
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(ResultCacheTest, NumbersComeBackBitForBit) {
  const double value = 0.1 + 0.2;
  cache().put("a", {{"x", value}, {"nan", number_or_null(std::nan(""))}});
  EXPECT_EQ(number_of(*cache().find("a"), "x"), value);
  EXPECT_TRUE(std::isnan(number_of(*cache().find("a"), "nan")));
}

TEST_F(ResultCacheTest, DamagedEntriesCountAsNone) {
  for (const std::string content :
       {"", "{", "[]", "null", "{\"key\": \"other\", \"value\": 1}", "{\"value\": 1}",
        "{\"key\": \"a\"}", "{\"key\": \"a\", \"key\": \"a\", \"value\": 1}", "\xff\xfe"}) {
    warnings_.clear();
    cache().put("a", 1);
    write_file_atomic(cache().file_of("a"), content);
    EXPECT_FALSE(cache().find("a")) << content;
    EXPECT_EQ(warnings_.size(), 1u) << content;
  }
}

TEST_F(ResultCacheTest, FieldsOfAnotherTypeAreCorrupt) {
  EXPECT_ERROR(number_of({{"x", "1"}}, "x"), ErrorKind::kCorrupt, "'x'");
  EXPECT_ERROR(number_of({{"x", 1}}, "y"), ErrorKind::kCorrupt, "'y'");
  EXPECT_ERROR(number_of(Json::array({1}), "x"), ErrorKind::kCorrupt, "'x'");
}

TEST_F(ResultCacheTest, AFolderThatCannotBeIsSaid) {
  write_file_atomic(folder_ / "below", "a file");
  EXPECT_ERROR(cache().put("a", 1), ErrorKind::kDisk, "below");
}

TEST(CacheDirectory, FollowsTheEnvironment) {
  const char* before = std::getenv("XDG_CACHE_HOME");
  const std::string kept = before == nullptr ? "" : before;
  ::setenv("XDG_CACHE_HOME", "/somewhere", 1);
  EXPECT_EQ(default_cache_directory(), fs::path("/somewhere/nibble"));
  if (before == nullptr) {
    ::unsetenv("XDG_CACHE_HOME");
  } else {
    ::setenv("XDG_CACHE_HOME", kept.c_str(), 1);
  }
}

}  // namespace
}  // namespace nibble
