// Formats chosen module by module: the knapsack against brute force, the file of measurements, and
// whole runs on a small model.
#include "quantize/mixed_precision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>

#include "quantize/math/allocation.h"
#include "quantize/small_model.h"
#include "support/exact_backend.h"

namespace nibble {
namespace {

std::vector<AllocationGroup> random_groups(std::mt19937& random, std::int64_t unit) {
  std::uniform_int_distribution<int> sizes(0, 9), options(1, 4);
  std::uniform_real_distribution<double> costs(0, 1);
  std::vector<AllocationGroup> groups(5);
  for (AllocationGroup& group : groups) {
    for (int i = options(random); i > 0; --i) {
      group.push_back({unit * sizes(random), costs(random) < 0.1 ? 0 : costs(random)});
    }
  }
  return groups;
}

// body(size, cost) of every choice there is.
template <class Body>
void for_every_choice(std::span<const AllocationGroup> groups, const Body& body,
                      std::int64_t size = 0, double cost = 0) {
  if (groups.empty()) return body(size, cost);
  for (const AllocationOption& option : groups.front()) {
    for_every_choice(groups.subspan(1), body, size + option.size, cost + option.cost);
  }
}

void expect_is_a_choice(std::span<const AllocationGroup> groups, const Allocation& found) {
  ASSERT_EQ(found.choice.size(), groups.size());
  std::int64_t size = 0;
  double cost = 0;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    size += groups[g].at(static_cast<std::size_t>(found.choice[g])).size;
    cost += groups[g].at(static_cast<std::size_t>(found.choice[g])).cost;
  }
  EXPECT_EQ(found.size, size);
  EXPECT_DOUBLE_EQ(found.cost, cost);
}

TEST(Allocation, IsTheBestOfAllChoicesWhereSizesAreWholeUnits) {
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    const auto groups = random_groups(random, 7);
    const std::int64_t capacity = std::uniform_int_distribution<std::int64_t>(0, 300)(random);
    double best = std::numeric_limits<double>::infinity();
    for_every_choice(groups, [&](std::int64_t size, double cost) {
      if (size <= capacity) best = std::min(best, cost);
    });
    const auto found = allocate(groups, capacity);
    ASSERT_EQ(found.has_value(), std::isfinite(best));
    if (!found) continue;
    expect_is_a_choice(groups, *found);
    EXPECT_LE(found->size, capacity);
    EXPECT_NEAR(found->cost, best, 1e-12);
    EXPECT_DOUBLE_EQ(found->bound, found->cost);
  }
}

TEST(Allocation, IsTheSmallestOfAllChoicesWithinACost) {
  std::mt19937 random(2);
  for (int i = 0; i < 200; ++i) {
    const auto groups = random_groups(random, 3);
    const double most = std::uniform_real_distribution<double>(0, 3)(random);
    std::int64_t best = -1;
    for_every_choice(groups, [&](std::int64_t size, double cost) {
      if (cost <= most && (best < 0 || size < best)) best = size;
    });
    const auto found = allocate_within_cost(groups, most);
    ASSERT_EQ(found.has_value(), best >= 0);
    if (!found) continue;
    expect_is_a_choice(groups, *found);
    EXPECT_LE(found->cost, most);
    EXPECT_EQ(found->size, best);
  }
}

// With fewer units than sizes need, the choice keeps its limit and its bound is one.
TEST(Allocation, KnowsHowFarItMayBeFromTheBest) {
  std::mt19937 random(3);
  int compared = 0;
  for (int i = 0; i < 200; ++i) {
    auto groups = random_groups(random, 100);
    for (AllocationGroup& group : groups) {
      for (AllocationOption& option : group) option.size += random() % 50;
    }
    const std::int64_t capacity = 1500;
    double best = std::numeric_limits<double>::infinity();
    for_every_choice(groups, [&](std::int64_t size, double cost) {
      if (size <= capacity) best = std::min(best, cost);
    });
    const auto found = allocate(groups, capacity, 40);
    if (!found) continue;
    ++compared;
    expect_is_a_choice(groups, *found);
    EXPECT_LE(found->size, capacity);
    EXPECT_GE(found->cost, best - 1e-12);
    EXPECT_LE(found->bound, best + 1e-12);
    // One group more or less than the Lagrangian's choice, and what the units round up.
    EXPECT_LE(best - found->bound, 1);
  }
  EXPECT_GT(compared, 100);
}

class MixedPrecisionTest : public testing::Test {
 protected:
  MixedPrecisionTest() : backend_(test::exact_backend(2)) {
    test::write_small_model(dir_ / "model", 2);
  }

  QuantizeOptions options(const std::string& output, const std::string& recipe,
                          const std::vector<std::string>& formats) {
    QuantizeOptions o = test::small_options(dir_ / "model", dir_ / output, recipe);
    for (const std::string& name : formats) o.mixed.formats.push_back(parse_model_format(name));
    return o;
  }
  std::string format_of(const std::string& output, const std::string& module) {
    return open_checkpoint(dir_ / output)->linear("model.layers." + module).format->name();
  }

  test::TempDir dir_;
  std::unique_ptr<Backend> backend_;
};

TEST_F(MixedPrecisionTest, MeetsBitsWithFusedModulesInOneFormat) {
  QuantizeOptions o = options("out", "rtn", {"w3a16_g128", "w4a16_g128", "w8a16_g128"});
  o.mixed.target_bits = 4.5;
  const QuantizeReport report = quantize(o, *backend_);
  EXPECT_LE(report.bits_per_weight, 4.5);
  EXPECT_GT(report.bits_per_weight, 4.3);  // one group of 64 kB either way is 0.2 bits
  EXPECT_EQ(report.convention, "compressed-tensors");
  ASSERT_TRUE(report.mixed.has_value());
  EXPECT_EQ(report.mixed->measured.size(), 2u * 4u * 3u);
  ASSERT_EQ(report.mixed->chosen.size(), 8u);
  std::set<std::string> used;
  for (const GroupFormat& chosen : report.mixed->chosen) used.insert(chosen.format);
  EXPECT_GT(used.size(), 1u);
  for (const std::string layer : {"0.", "1."}) {
    EXPECT_EQ(format_of("out", layer + "self_attn.q_proj"),
              format_of("out", layer + "self_attn.k_proj"));
    EXPECT_EQ(format_of("out", layer + "self_attn.q_proj"),
              format_of("out", layer + "self_attn.v_proj"));
    EXPECT_EQ(format_of("out", layer + "mlp.gate_proj"), format_of("out", layer + "mlp.up_proj"));
  }
}

// What a solver with Hessians loses, measured alone: more bits are nearer, and the file serves
// another target and other formats without measuring again.
TEST_F(MixedPrecisionTest, MeasuresOnceForEveryTarget) {
  const std::filesystem::path file = dir_ / "measured.json";
  QuantizeOptions measuring = options("", "gptq_actorder", {"w4a16_g128", "w8a16_g128"});
  measuring.mixed.measurements = file;
  measuring.mixed.measure_only = true;
  const QuantizeReport measured = quantize(measuring, *backend_);
  ASSERT_TRUE(std::filesystem::exists(file));
  EXPECT_FALSE(std::filesystem::exists(file.string() + ".run.partial"));
  for (std::size_t i = 0; i < measured.mixed->measured.size(); i += 2) {
    EXPECT_GT(measured.mixed->measured[i].kl, 4 * measured.mixed->measured[i + 1].kl);
    EXPECT_GT(measured.mixed->measured[i + 1].kl, 0);
  }
  const std::string before = read_text_file(file);

  QuantizeOptions o = options("out", "gptq_actorder", {"w8a16_g128", "w4a16_g128"});
  o.mixed.measurements = file;
  o.mixed.target_bytes = measured.output_bytes > 0 ? measured.output_bytes : 4'000'000;
  const auto written = std::filesystem::last_write_time(file);
  const QuantizeReport report = quantize(o, *backend_);
  EXPECT_LE(report.output_bytes, o.mixed.target_bytes);
  EXPECT_EQ(read_text_file(file), before);
  EXPECT_EQ(std::filesystem::last_write_time(file), written) << "nothing was measured again";

  QuantizeOptions other = options("other", "rtn", {"w8a16_g128"});
  other.mixed.measurements = file;
  other.mixed.target_bits = 9;
  EXPECT_THROW(quantize(other, *backend_), Error);  // of another recipe

  QuantizeOptions overridden = o;
  overridden.output = dir_ / "overridden";
  overridden.overrides = {{"o_proj", parse_weight_format("int8_channel_sym")}};
  EXPECT_THROW(quantize(overridden, *backend_), Error);  // of other formats under the same names
}

TEST_F(MixedPrecisionTest, MeetsALossMeasuredTogether) {
  QuantizeOptions o = options("out", "rtn", {"w3a16_g128", "w4a16_g128", "w8a16_g128"});
  o.mixed.max_kl = 0.01;
  const QuantizeReport report = quantize(o, *backend_);
  ASSERT_TRUE(report.mixed->measured_kl.has_value());
  EXPECT_LE(*report.mixed->measured_kl, 0.01);
  EXPECT_GT(*report.mixed->measured_kl, 0.003);  // or the smaller formats were not used
  EXPECT_LT(report.bits_per_weight, 8);
}

TEST_F(MixedPrecisionTest, RefusesWhatCannotBeMet) {
  QuantizeOptions small = options("out", "rtn", {"w4a16_g128"});
  small.mixed.target_bits = 3;
  EXPECT_THROW(quantize(small, *backend_), Error);
  QuantizeOptions near = options("out", "rtn", {"w3a16_g128"});
  near.mixed.max_kl = 1e-6;
  EXPECT_THROW(quantize(near, *backend_), Error);
  QuantizeOptions two = options("out", "rtn", {"w4a16_g128"});
  two.mixed.target_bits = 5;
  two.mixed.max_kl = 0.1;
  EXPECT_THROW(quantize(two, *backend_), Error);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "out"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "out.partial"));
}

TEST(Measurements, RefuseADamagedFile) {
  test::TempDir dir;
  for (const char* text :
       {"", "[]", R"({"nibble_measurements": 2, "key": "k", "rows": []})",
        R"({"nibble_measurements": 1, "key": "other", "rows": []})",
        R"({"nibble_measurements": 1, "key": "k", "rows": [{"layer": -1}]})",
        R"({"nibble_measurements": 1, "key": "k", "rows": [{"layer": 0, "group": "g",
            "format": "f", "kl": "x"}]})"}) {
    write_file_atomic(dir / "m.json", text);
    EXPECT_THROW(Measurements(dir / "m.json", "k"), Error) << text;
  }
}

}  // namespace
}  // namespace nibble
