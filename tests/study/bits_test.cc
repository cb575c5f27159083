#include "study/bits.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "backends/backend.h"
#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "model/arch.h"
#include "study/block_error.h"
#include "study/tensors.h"
#include "support/exact_backend.h"
#include "support/test_data.h"

namespace nibble {
namespace {

struct Expected {
  const char* format;
  double normal, student, laplace;
};

// Bits of 4e6 samples that numpy drew and rounded, scales in float32.
TEST(StudyFormats, SampledTable) {
  const Expected table[] = {
      {"w=int4_g32_asym", 3.630, 3.431, 3.406},
      {"w=int4_g128_asym", 3.314, 2.912, 2.938},
      {"w=int3_g128_asym", 2.214, 1.820, 1.875},
      {"w=int2_g64_asym", 1.129, 0.939, 0.992},
      {"w=nf4_g64_sf32", 3.443, 3.258, 3.270},
      {"w=bnb4_g64_sf32", 3.035, 2.701, 2.731},
      {"w=fp4_e2m1_g16_sf32", 3.409, 3.461, 3.455},
      {"mxfp4", 3.121, 2.988, 2.980},
      {"mxfp4_ceil", 3.115, 2.916, 2.920},
      {"nvfp4_plain", 3.394, 3.437, 3.432},
      {"nvfp4", 3.524, 3.529, 3.520},
      {"mxfp6_e2m3", 5.139, 5.038, 5.030},
      {"mxfp6_e3m2", 4.212, 4.190, 4.189},
      {"w=fp8_e4m3_g32_se8m0_floor", 5.091, 4.989, 4.981},
      {"mxfp8", 5.236, 5.238, 5.239},
      {"mxint8", 6.920, 6.649, 6.643},
  };
  const auto samples = sample_distributions();
  ASSERT_EQ(samples.size(), 3u);
  for (const Expected& expected : table) {
    const auto formats = study_formats_named({expected.format});
    const double bits[] = {expected.normal, expected.student, expected.laplace};
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto rows =
          study_formats({"distribution", "", ""}, samples[i].values, samples[i].cols, formats);
      ASSERT_EQ(rows.size(), 1u);
      EXPECT_NEAR(rows[0].bits, bits[i], 0.02) << expected.format << ' ' << samples[i].name;
    }
  }
}

// The same table where the scale of a block is exact.
TEST(StudyBlocks, SampledTable) {
  const struct {
    const char* element;
    const char* range;
    double normal, student, laplace;
  } table[] = {
      {"int4", "block16", 3.553, 3.314, 3.304},
      {"int4", "block32", 3.366, 3.033, 3.045},
      {"int4", "block64", 3.215, 2.780, 2.829},
      {"int4", "block128", 3.090, 2.544, 2.642},
      {"int4", "block256", 2.984, 2.322, 2.478},
      {"int4", "block1024", 2.811, 1.900, 2.204},
      {"int4", "block128+clip", 3.241, 2.693, 2.784},
      {"nf4", "block32", 3.518, 3.431, 3.424},
      {"nf4", "block64", 3.443, 3.258, 3.270},
      {"nf4", "block128", 3.387, 3.090, 3.138},
      {"bnb4", "block64", 3.035, 2.701, 2.731},
      {"e2m1", "block16", 3.409, 3.461, 3.455},
      {"e2m1", "block32", 3.306, 3.297, 3.287},
      {"e2m1", "block64", 3.242, 3.156, 3.155},
      {"e2m1", "block128", 3.199, 3.023, 3.047},
      {"e3m0", "block32", 2.470, 2.581, 2.578},
      {"int3", "block64", 1.992, 1.595, 1.664},
      {"int3", "block128", 1.869, 1.375, 1.488},
      {"int2", "block64", 0.478, 0.428, 0.462},
      {"int8", "block32", 7.546, 7.213, 7.216},
      {"int8", "block128", 7.272, 6.722, 6.806},
      {"int8", "block1024", 6.992, 6.069, 6.358},
      {"e4m3", "block128", 5.282, 5.345, 5.332},
      {"int4_asym", "block32", 3.630, 3.431, 3.406},
      {"int4_asym", "block128", 3.314, 2.912, 2.938},
      {"int3_asym", "block128", 2.214, 1.820, 1.875},
      {"int2_asym", "block64", 1.129, 0.939, 0.992},
  };
  const auto samples = sample_distributions();
  for (std::size_t i = 0; i < samples.size(); ++i) {
    std::map<std::pair<std::string, std::string>, double> bits;
    for (const BitsRow& row : study_blocks({}, samples[i].values)) {
      bits[{row.format, row.range}] = row.bits;
    }
    for (const auto& expected : table) {
      const double wanted[] = {expected.normal, expected.student, expected.laplace};
      // Of Student's t a few extreme samples set the scales of large blocks.
      const bool few_extremes = i == 1 && std::stoi(std::string(expected.range).substr(5)) >= 128;
      EXPECT_NEAR((bits[{expected.element, expected.range}]), wanted[i], few_extremes ? 0.06 : 0.02)
          << expected.element << ' ' << expected.range << ' ' << samples[i].name;
    }
  }
}

TEST(BlockError, ZerosAndTails) {
  const std::vector<float> values = {0, 0, 0, 0, 3};  // the last block holds one value
  EXPECT_EQ(block_error(integer_grid(4), values, 4), 0);
  const std::vector<float> half = {7, 0.5f};  // halfway between the levels 0 and 1
  EXPECT_DOUBLE_EQ(block_error(integer_grid(4), half, 2), 0.125);
}

// A block may lie on one side of 0; factors below 1 give up an end for a finer step.
TEST(BlockError, WithAZeroPoint) {
  const std::vector<float> values = {0, 0, 0, 1, 2, 3};
  EXPECT_EQ(zero_point_block_error(2, values, 3), 0);
  const std::vector<float> below = {-6, -4, -2, 0};
  EXPECT_EQ(zero_point_block_error(2, below, 4), 0);
  std::vector<float> many(64, 1);
  many.push_back(3.3f);  // under the step 1.1 each 1 is off by 0.1; under 1 only the end is
  EXPECT_NEAR(zero_point_block_error(2, many, 65), 64 * 0.01 / 65, 1e-6);
  EXPECT_LE(zero_point_block_error(2, many, 65, 25), 64 * 0.01 / 65 / 2);
}

TEST(StudyFormats, LeavesOutWhatCannotBeStored) {
  const std::vector<float> values(3 * 100, 1.0f);
  EXPECT_TRUE(study_formats({}, values, 100, study_formats_named({"w4a16_g128"})).empty());
}

TEST(StudyFormats, NamesThatRoundNoWeightsAreErrors) {
  EXPECT_ERROR(study_formats_named({"w5a16_g182"}), ErrorKind::kUsage, "w5a16_g128");
  const std::vector<NamedFormat> all = study_formats_named({});
  EXPECT_GE(all.size(), 10u);
  std::set<std::string> stored;
  for (const NamedFormat& format : all) {
    EXPECT_TRUE(stored.insert(format.format->name()).second) << format.name;
  }
}

TEST(StudyDistributions, HaveTheDegreesOfFreedomThatAreAskedFor) {
  const double degrees[] = {2.5, 0.8};
  const auto all = study_distributions(degrees);
  ASSERT_EQ(all.size(), 7u);
  EXPECT_EQ(all[3].name, "student-t 2.5");
  EXPECT_EQ(all[4].name, "student-t 0.8");
  EXPECT_GT(all[4].distribution->above(5).mass, all[3].distribution->above(5).mass);
}

TEST(StudyCalibrators, BetweenNothingAndTheBestRange) {
  const std::vector<float> values = sample_distributions()[1].values;  // Student's t
  Histogram histogram;
  histogram.add(values);
  const auto distribution = empirical_distribution(values);
  const auto elements = study_elements({}, *distribution, false);
  for (const BitsRow& row :
       study_calibrators({}, *distribution, histogram, calibrators(), CalibratorOptions{})) {
    const auto best = std::find_if(elements.begin(), elements.end(), [&](const BitsRow& e) {
      return e.format == row.format && e.range == "best";
    });
    ASSERT_NE(best, elements.end());
    EXPECT_LE(row.bits, best->bits + 1e-3) << row.format << ' ' << row.range;
    if (row.range == "mse") {
      EXPECT_NEAR(row.bits, best->bits, 0.01) << row.format;
    }
    if (row.range == "minmax") {
      EXPECT_NEAR(row.clip, histogram.largest() / deviation(*distribution), 1e-6);
    }
  }
}

// Channels that are multiples of one another keep what one channel keeps under its own range, and a
// shared range loses; rows and columns are told apart.
TEST(StudyCalibrators, RangesByChannel) {
  constexpr std::int64_t kRows = 64, kCols = 512;
  const std::vector<float> base = sample_distributions()[0].values;
  std::vector<float> values(kRows * kCols), turned(values.size());
  for (std::int64_t r = 0; r < kRows; ++r) {
    for (std::int64_t c = 0; c < kCols; ++c) {
      const float v = base[static_cast<std::size_t>(c)] * std::exp2(static_cast<float>(r % 8));
      values[static_cast<std::size_t>(r * kCols + c)] = v;
      turned[static_cast<std::size_t>(c * kRows + r)] = v;
    }
  }
  const std::vector<float> one(values.begin(), values.begin() + kCols);
  Histogram histogram = Histogram::of_channel();
  histogram.add(one);
  const auto of_one = study_calibrators({}, *empirical_distribution(one), histogram, calibrators(),
                                        CalibratorOptions{});
  const auto by_row =
      study_channel_calibrators({}, values, kCols, false, calibrators(), CalibratorOptions{});
  const auto by_column =
      study_channel_calibrators({}, turned, kRows, true, calibrators(), CalibratorOptions{});
  Histogram all;
  all.add(values);
  const auto of_all = study_calibrators({}, *empirical_distribution(values), all, calibrators(),
                                        CalibratorOptions{});
  const auto across =
      study_channel_calibrators({}, values, kCols, true, calibrators(), CalibratorOptions{});
  ASSERT_EQ(by_row.size(), of_one.size());
  for (std::size_t i = 0; i < of_one.size(); ++i) {
    EXPECT_EQ(by_row[i].range, of_one[i].range + "/channel");
    EXPECT_NEAR(by_row[i].bits, of_one[i].bits, 1e-3) << of_one[i].range;
    EXPECT_DOUBLE_EQ(by_column[i].bits, by_row[i].bits) << of_one[i].range;
    if (of_one[i].range == "minmax") {
      EXPECT_LT(of_all[i].bits, by_row[i].bits - 0.1);
      EXPECT_NE(across[i].bits, by_row[i].bits);
    }
  }
}

TEST(Tensors, OfAModelAreSampledByBlock) {
  const auto checkpoint = open_checkpoint(test::tiny_novel());
  const ModelSpec spec = build_spec(checkpoint->config());
  const auto backend = test::exact_backend();
  std::vector<TensorSample> samples;
  const TensorSink keep = [&](std::vector<TensorSample> block) {
    for (auto& sample : block) samples.push_back(std::move(sample));
  };
  sample_weights(spec, *checkpoint, *backend, keep);
  ASSERT_EQ(samples.size(), static_cast<std::size_t>(7 * spec.layers));
  EXPECT_EQ(samples[0].name, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(samples[0].group, "q_proj");
  EXPECT_EQ(samples[0].histogram.total(),
            samples[0].cols * spec.attention.heads * spec.attention.head_dim);

  samples.clear();
  std::vector<std::int32_t> ids(100);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i + 5);
  sample_activations(spec, *checkpoint, *backend, ids, 48, keep);
  ASSERT_EQ(samples.size(), static_cast<std::size_t>(4 * spec.layers));
  EXPECT_EQ(samples[0].name, "layers.0.attn_in");
  EXPECT_EQ(samples[0].histogram.total(), 96 * spec.hidden);  // two whole windows
  EXPECT_EQ(samples[0].values.size(), static_cast<std::size_t>(96 * spec.hidden));
  EXPECT_ERROR(sample_activations(spec, *checkpoint, *backend, {}, 48, keep), ErrorKind::kUsage,
               "no tokens");
}

}  // namespace
}  // namespace nibble
