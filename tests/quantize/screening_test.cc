#include "quantize/screening.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

Screening screening(std::int64_t windows, std::int64_t context) {
  CalibrationWindows cut;
  cut.context = context;
  cut.search.resize(static_cast<std::size_t>(windows * context));
  return Screening(cut);
}

TEST(Screening, ManyCandidatesMeetAnEighthOfTheWindowsFirst) {
  const Screening s = screening(16, 64);
  EXPECT_EQ(s.rows, 1024);
  EXPECT_EQ(s.first_rows, 128);
  EXPECT_TRUE(s.applies(7));
  EXPECT_EQ(s.tokens(43), 43 * 128 + 6 * 1024);
  EXPECT_EQ(s.tokens_at_once(43), 6 * 1024);
  EXPECT_EQ(s.tokens_at_once(64), 64 * 128);
}

TEST(Screening, FewCandidatesMeetAllWindowsAtOnce) {
  const Screening s = screening(16, 64);
  EXPECT_FALSE(s.applies(6));
  EXPECT_EQ(s.tokens(6), 6 * 1024);
  EXPECT_EQ(s.tokens_at_once(6), 6 * 1024);
}

TEST(Screening, OneWindowCannotBeDivided) {
  const Screening s = screening(1, 64);
  EXPECT_FALSE(s.applies(43));
  EXPECT_EQ(s.tokens(43), 43 * 64);
  EXPECT_EQ(screening(0, 0).tokens(43), 0);
}

}  // namespace
}  // namespace nibble
