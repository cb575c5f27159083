#include "eval/windows.h"

#include <numeric>

#include "base/error.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using Ids = std::vector<std::int32_t>;

Ids count_to(int n) {
  Ids ids(static_cast<std::size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

TEST(Windows, TheTailIsDropped) {
  const Ids ids = count_to(11);
  const WindowPlan plan = plan_windows(ids, {.context = 4});
  EXPECT_EQ(plan.count, 2);
  EXPECT_EQ(plan.counted_per_window(), 3);
  EXPECT_EQ(plan.tokens(0, 2), (Ids{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(plan.tokens(1, 2), (Ids{4, 5, 6, 7}));
}

// What transformers counted for the bundled model's text, in reference.json.
TEST(Windows, CountsOfTheReferenceProtocol) {
  const Ids ids(535571, 1);
  for (const auto& [context, predicted] : {std::pair{512, 534506}, std::pair{1024, 535029}}) {
    const WindowPlan plan = plan_windows(ids, {.context = context});
    EXPECT_EQ(plan.count * plan.counted_per_window(), predicted);
  }
}

// llama.cpp scores positions n_ctx / 2 ... n_ctx - 2 of each window.
TEST(Windows, LlamaCppCountsTheSecondHalfAfterBos) {
  const Ids ids = count_to(17);
  WindowOptions options;
  options.context = 8;
  options.protocol = WindowProtocol::kLlamaCpp;
  options.bos = 99;
  const WindowPlan plan = plan_windows(ids, options);
  EXPECT_EQ(plan.count, 2);
  EXPECT_EQ(plan.first_counted, 4);
  EXPECT_EQ(plan.counted_per_window(), 3);
  EXPECT_EQ(plan.tokens(1, 2), (Ids{99, 9, 10, 11, 12, 13, 14, 15}));
  options.bos = -1;
  EXPECT_EQ(plan_windows(ids, options).tokens(1, 2).front(), 8);
}

TEST(Windows, AShortTextIsOneWindow) {
  const WindowPlan plan = plan_windows(count_to(5), {.context = 1024});
  EXPECT_EQ(plan.count, 1);
  EXPECT_EQ(plan.rows, 5);
}

TEST(Windows, MaxTokensCutsTheText) {
  const Ids ids = count_to(100);
  EXPECT_EQ(plan_windows(ids, {.context = 8, .max_tokens = 20}).count, 2);
}

TEST(Windows, NothingToPredictIsAUsageError) {
  const Ids one = {1};
  const Ids many = count_to(9);
  EXPECT_ERROR(plan_windows(one, {}), ErrorKind::kUsage, "two are needed");
  EXPECT_ERROR(plan_windows(many, {.context = 1}), ErrorKind::kUsage, "two are needed");
  EXPECT_ERROR(plan_windows(many, {.max_tokens = 1}), ErrorKind::kUsage, "two are needed");
}

}  // namespace
}  // namespace nibble
