#include "quantize/texts.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "base/file.h"
#include "quantize/verify.h"
#include "support/test_data.h"

namespace nibble {
namespace {

std::string random_text(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < size) {
    text += static_cast<char>('a' + random() % 26);
    if (random() % 6 == 0) text += ' ';
  }
  return text;
}

TEST(Overlap, FindsSharedPassagesWhereverTheyStand) {
  const std::string shared = random_text(5000, 1);
  const std::string text = random_text(2501, 2) + shared + random_text(2499, 3);
  const std::string other = random_text(777, 4) + shared + random_text(20000, 5);
  EXPECT_NEAR(overlap(text, other), 0.5, 0.05);
  EXPECT_EQ(overlap(text, random_text(20000, 6)), 0);
  EXPECT_NEAR(overlap(text, text), 1, 0.02);
  EXPECT_EQ(overlap("", text), 0);
  EXPECT_EQ(overlap(text, ""), 0);
}

TEST(BundledTexts, DoNotOverlap) {
  EXPECT_GT(bundled_calibration_text().size(), 100000u);
  EXPECT_GT(bundled_verification_text().size(), 100000u);
  EXPECT_EQ(overlap(bundled_verification_text(), bundled_calibration_text()), 0);
  EXPECT_EQ(bundled_calibration_text(), read_text_file(test::source_dir() / "data/calib.txt"));
}

TEST(VerificationText, RefusesTheCalibrationText) {
  test::TempDir dir;
  const std::string text = random_text(10000, 7);
  write_file_atomic(dir / "text", text);
  VerifyOptions options;
  options.text = dir / "text";
  EXPECT_EQ(verification_text(options, random_text(10000, 8)), text);
  EXPECT_ERROR(verification_text(options, text), ErrorKind::kUsage, "calibration text");
  EXPECT_ERROR(verification_text({}, bundled_verification_text()), ErrorKind::kUsage, "bundled");
  write_file_atomic(dir / "text", "\xff");
  EXPECT_ERROR(verification_text(options, ""), ErrorKind::kUsage, "UTF-8");
}

}  // namespace
}  // namespace nibble
