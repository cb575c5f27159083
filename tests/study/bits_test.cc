#include "study/bits.h"

#include <cmath>

#include "backends/backend.h"
#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "model/arch.h"
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

TEST(StudyFormats, LeavesOutWhatCannotBeStored) {
  const std::vector<float> values(3 * 100, 1.0f);
  EXPECT_TRUE(study_formats({}, values, 100, study_formats_named({"w4a16_g128"})).empty());
}

TEST(StudyFormats, NamesThatRoundNoWeightsAreErrors) {
  EXPECT_ERROR(study_formats_named({"w5a16_g182"}), ErrorKind::kUsage, "w5a16_g128");
  EXPECT_GE(study_formats_named({}).size(), 10u);
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
