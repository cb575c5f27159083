// Every implementation of sample, against a draw from sorted probabilities in float64.
#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "contract/op_support.h"

namespace nibble::test {
namespace {

using Impls = ::testing::TestWithParam<std::string>;

std::string name_of(const ::testing::TestParamInfo<std::string>& test) { return test.param; }

// Sums of 2^17 terms, each rounded to 2^-40 or by 1e-16, are nearer than this to each other.
constexpr double kNear = 1e-6;

struct Drawn {
  std::int32_t column = -1;
  // Whether another implementation may draw another column: a sum of probabilities is within
  // rounding of a border.
  bool near_border = false;
};

// A row divided by its temperature, the largest first and equals in the order of columns.
class SortedRow {
 public:
  SortedRow(std::span<const float> row, float temperature) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      order_.emplace_back(row[c] / temperature, static_cast<std::int32_t>(c));
    }
    std::ranges::stable_sort(order_, std::greater<>(), &Entry::first);
    top_ = order_[0].first;
  }

  void keep_top_k(std::size_t k) {
    if (k == 0 || k >= order_.size()) return;
    const float last = order_[k - 1].first;
    std::erase_if(order_, [&](const Entry& entry) { return entry.first < last; });
  }

  // True when a sum is near the border.
  bool keep_top_p(double p) {
    if (p == 1) return false;
    const double whole = total();
    const double allowed = (1 - p) * whole;
    bool near = false;
    for (double removed = 0; order_.size() > 1; order_.pop_back()) {
      const double mass = mass_of(order_.back());
      removed += mass;
      near = near || (mass > kNear && std::abs(removed - allowed) < kNear * whole);
      if (removed > allowed) break;
    }
    return near;
  }

  void keep_min_p(double p) {
    const double least = p > 0 ? order_[0].first + std::log(p) : -INFINITY;
    std::erase_if(order_, [&](const Entry& entry) { return entry.first < least; });
  }

  Drawn draw(double u) {
    const double whole = total();
    std::ranges::sort(order_, {}, &Entry::second);
    Drawn drawn;
    double sum = 0;
    for (const Entry& entry : order_) {
      if (drawn.column < 0 || sum <= u * whole) drawn.column = entry.second;
      sum += mass_of(entry);
      drawn.near_border = drawn.near_border || std::abs(sum - u * whole) < kNear * whole;
    }
    return drawn;
  }

 private:
  using Entry = std::pair<float, std::int32_t>;

  double mass_of(const Entry& entry) const {
    return std::exp(static_cast<double>(entry.first) - top_);
  }
  double total() const {
    double sum = 0;
    for (const Entry& entry : order_) sum += mass_of(entry);
    return sum;
  }

  std::vector<Entry> order_;
  double top_ = 0;
};

Drawn drawn_by_sorting(std::span<const float> row, const TokenChoice& choice) {
  if (choice.temperature < 1e-30f) {
    return {static_cast<std::int32_t>(std::ranges::max_element(row) - row.begin()), false};
  }
  SortedRow sorted(row, choice.temperature);
  sorted.keep_top_k(static_cast<std::size_t>(choice.top_k));
  const bool near = sorted.keep_top_p(choice.top_p);
  sorted.keep_min_p(choice.min_p);
  Drawn drawn = sorted.draw(choice.u);
  drawn.near_border = drawn.near_border || near;
  return drawn;
}

std::vector<TokenChoice> many_choices() {
  std::vector<TokenChoice> choices;
  std::mt19937_64 random(17);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (const float temperature : {0.3f, 1.0f, 2.5f}) {
    for (const std::int32_t top_k : {0, 1, 7, 400, 1 << 30}) {
      for (const float top_p : {1.0f, 0.9f, 0.2f, 1e-9f}) {
        for (const float min_p : {0.0f, 0.05f, 1.0f}) {
          choices.push_back({temperature, top_p, min_p, top_k, uniform(random)});
        }
      }
    }
  }
  choices.push_back({1, 1, 0, 0, 0});
  choices.push_back({1, 1, 0, 0, 1 - 0x1p-53});
  choices.push_back({0, 0.5f, 0.5f, 3, 0.7});   // the largest
  choices.push_back({1e-44f, 1, 0, 0, 0.999});  // likewise
  return choices;
}

class SampleContract : public Impls {};
TEST_P(SampleContract, DrawsWhatSortingDraws) {
  const auto backend = forced_backend("sample", GetParam());
  const std::vector<TokenChoice> choices = many_choices();
  const auto rows = static_cast<std::int64_t>(choices.size());
  for (const std::int64_t cols : {1, 5, 31, 1000, 4099}) {
    std::vector<float> x = random_floats(rows * cols, 92, 3);
    for (std::int64_t r = 0; r < rows; r += 2) {  // of many equals
      for (std::int64_t c = 0; c < cols; ++c) {
        float& v = x[static_cast<std::size_t>(r * cols + c)];
        v = std::round(v);
        if (c % 5 == 3 && cols > 5) v = -std::numeric_limits<float>::infinity();
      }
    }
    GuardedOutput chosen(rows, 1, 1);  // of the size of a float
    backend->run(SampleArgs{.x = x.data(),
                            .rows = rows,
                            .cols = cols,
                            .choices = choices,
                            .chosen = reinterpret_cast<std::int32_t*>(chosen.data())});
    EXPECT_EQ(chosen.damage(), "");
    std::int64_t near = 0;
    for (std::int64_t r = 0; r < rows; ++r) {
      const TokenChoice& choice = choices[static_cast<std::size_t>(r)];
      const std::span<const float> row(x.data() + r * cols, static_cast<std::size_t>(cols));
      const Drawn expected = drawn_by_sorting(row, choice);
      near += expected.near_border ? 1 : 0;
      if (expected.near_border) continue;
      EXPECT_EQ(std::bit_cast<std::int32_t>(chosen.at(r, 0)), expected.column)
          << cols << " columns, temperature " << choice.temperature << ", top_k " << choice.top_k
          << ", top_p " << choice.top_p << ", min_p " << choice.min_p << ", u " << choice.u;
    }
    EXPECT_LT(near, rows / 10);
  }
}

// Of the size of a vocabulary, and as often as probabilities say.
TEST_P(SampleContract, DrawsAsOftenAsProbabilitiesSay) {
  const auto backend = forced_backend("sample", GetParam());
  constexpr std::int64_t kCols = 32000;
  constexpr std::int64_t kRows = 400;
  // Half the mass lies in 4 columns far apart, half in all others together.
  std::vector<float> row(kCols, 0);
  const float high = std::log(static_cast<float>(kCols - 4) / 4);
  for (const std::size_t c : {0u, 9000u, 20000u, 31999u}) row[c] = high;
  std::vector<float> x;
  std::vector<TokenChoice> choices;
  for (std::int64_t r = 0; r < kRows; ++r) {
    x.insert(x.end(), row.begin(), row.end());
    choices.push_back({1, 1, 0, 0, (static_cast<double>(r) + 0.5) / kRows});
  }
  std::vector<std::int32_t> chosen(kRows);
  backend->run(SampleArgs{x.data(), kRows, kCols, choices, chosen.data()});
  std::int64_t likely = 0;
  for (const std::int32_t c : chosen) likely += row[static_cast<std::size_t>(c)] == high ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(likely), kRows / 2, 4);
  EXPECT_TRUE(std::ranges::is_sorted(chosen));  // as u rises
}

TEST_P(SampleContract, BrokenRowsGiveNoToken) {
  const auto backend = forced_backend("sample", GetParam());
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> x = {1, std::nanf(""), 2,          1,          kInfinity,  2,
                          0, -kInfinity,    -kInfinity, -kInfinity, -kInfinity, -kInfinity};
  const std::vector<TokenChoice> choices(4, {1, 0.9f, 0, 2, 0.99});
  std::vector<std::int32_t> chosen(4, 77);
  backend->run(SampleArgs{x.data(), 4, 3, choices, chosen.data()});
  EXPECT_EQ(chosen, (std::vector<std::int32_t>{-1, -1, 0, -1}));
  backend->run(SampleArgs{x.data(), 0, 3, {}, chosen.data()});
}
INSTANTIATE_TEST_SUITE_P(Impls, SampleContract, ::testing::ValuesIn(usable_impls("sample")),
                         name_of);

}  // namespace
}  // namespace nibble::test
