#include "runtime/stop_strings.h"

#include "base/error.h"
#include "support/test_data.h"

namespace nibble {
namespace {

TEST(StopStrings, WithoutStringsEverythingPassesAtOnce) {
  StopStrings stop({});
  EXPECT_EQ(stop.push("abc"), "abc");
  EXPECT_EQ(stop.flush(), "");
  EXPECT_FALSE(stop.stopped());
}

TEST(StopStrings, HoldsBackWhatMayBecomeAStop) {
  StopStrings stop({"</end>"});
  EXPECT_EQ(stop.push("text <"), "text ");
  EXPECT_EQ(stop.push("/e"), "");
  EXPECT_EQ(stop.push("xit>"), "</exit>");
  EXPECT_EQ(stop.push("</en"), "");
  EXPECT_EQ(stop.push("d> more"), "");
  EXPECT_TRUE(stop.stopped());
  EXPECT_EQ(stop.push("more"), "");
  EXPECT_EQ(stop.flush(), "");
}

TEST(StopStrings, FlushGivesBackWhatNeverBecameAStop) {
  StopStrings stop({"\n\n"});
  EXPECT_EQ(stop.push("line\n"), "line");
  EXPECT_EQ(stop.flush(), "\n");
}

TEST(StopStrings, TheStopThatIsCompleteFirstWins) {
  StopStrings longer_later({"abcd", "c"});
  EXPECT_EQ(longer_later.push("xabcd"), "xab");
  StopStrings same_end({"bc", "abc"});
  EXPECT_EQ(same_end.push("xabcd"), "x");
}

TEST(StopStrings, EmptyStringsAreUsageErrors) {
  EXPECT_ERROR(StopStrings({"a", ""}), ErrorKind::kUsage, "stop string");
}

// Whatever the pieces, the text that passes is the text before the first stop.
TEST(StopStrings, TheResultDoesNotDependOnThePieces) {
  const std::string text = "aabaabbabaabababbaab-rest";
  const std::vector<std::string> strings = {"abab", "bb-"};
  const std::string expected = text.substr(0, text.find("abab"));
  for (std::size_t a = 0; a <= text.size(); ++a) {
    for (std::size_t b = a; b <= text.size(); ++b) {
      StopStrings stop(strings);
      std::string passed;
      for (const auto& piece : {text.substr(0, a), text.substr(a, b - a), text.substr(b)}) {
        passed += stop.push(piece);
        ASSERT_TRUE(expected.starts_with(passed)) << a << " " << b;
      }
      passed += stop.flush();
      EXPECT_EQ(passed, expected) << a << " " << b;
    }
  }
}

}  // namespace
}  // namespace nibble
