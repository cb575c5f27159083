#include "study/outliers.h"

#include <cmath>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "model/arch.h"
#include "study/outliers_report.h"
#include "study/transformed_layers.h"
#include "support/exact_backend.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using testing::HasSubstr;

Json golden(const std::string& name) {
  return read_json_file((test::source_dir() / "tests/golden/study" / name).string());
}

class OutlierStudyTest : public testing::Test {
 protected:
  OutlierStudyTest()
      : checkpoint_(open_checkpoint(test::tiny_novel())),
        spec_(build_spec(checkpoint_->config())),
        backend_(test::exact_backend(2)),
        ids_(golden("scaling.json")["ids"].get<std::vector<std::int32_t>>()) {}

  OutlierStudy as_it_is() const {
    return study_outliers(
        spec_, *checkpoint_,
        [&](std::int64_t layer) { return load_layer(spec_, layer, *checkpoint_, *backend_); }, ids_,
        128, *backend_);
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  ModelSpec spec_;
  std::unique_ptr<Backend> backend_;
  std::vector<std::int32_t> ids_;
};

// Hooks in transformers, numpy for the statistics.
TEST_F(OutlierStudyTest, AgreesWithTransformers) {
  const Json expected = golden("outliers.json");
  const OutlierStudy study = as_it_is();
  ASSERT_EQ(study.sites.size(), expected["sites"].size());
  constexpr double kRelative = 1e-3;  // float32 through six layers, fourth powers of it
  for (std::size_t i = 0; i < study.sites.size(); ++i) {
    const Json& e = expected["sites"][i];
    const OutlierSite& site = study.sites[i];
    SCOPED_TRACE(e["site"].get<std::string>() + " of " + e["layer"].dump());
    EXPECT_EQ(site.row.layer, e["layer"]);
    EXPECT_EQ(site.row.site, e["site"]);
    EXPECT_NEAR(site.row.absmax / e["absmax"].get<double>(), 1, kRelative);
    EXPECT_EQ(site.row.channel, e["channel"]);
    EXPECT_NEAR(site.row.ratio / e["ratio"].get<double>(), 1, kRelative);
    EXPECT_NEAR(site.kurtosis / e["kurtosis"].get<double>(), 1, kRelative);
    EXPECT_EQ(site.outlier_channels, e["outlier_channels"]);
    EXPECT_NEAR(site.token_share, e["token_share"].get<double>(), 1e-9);
  }
  for (std::size_t i = 0; i < study.layer_absmax.size(); ++i) {
    EXPECT_NEAR(study.layer_absmax[i] / expected["hidden_absmax"][i].get<double>(), 1, kRelative);
    EXPECT_NEAR(study.layer_median[i] / expected["hidden_median"][i].get<double>(), 1, kRelative);
  }
  ASSERT_EQ(study.features.size(), expected["features"].size());
  for (const FeatureDimension& feature : study.features) {
    const Json& e = expected["features"][std::to_string(feature.channel)];
    EXPECT_NEAR(feature.layer_share, e[0].get<double>(), 1e-9);
    EXPECT_NEAR(feature.token_share, e[1].get<double>(), 1e-9);
  }
  const LargeActivation& last = study.activations[study.activations.size() - 3];
  EXPECT_EQ(last.layer, spec_.layers - 1);
  EXPECT_EQ(last.token, expected["last_token"]);
  EXPECT_EQ(last.position, expected["last_token"].get<std::int64_t>() % 128);
  EXPECT_EQ(last.channel, expected["last_channel"]);
}

TEST_F(OutlierStudyTest, SmoothingTakesOutliersDownAndChangesNothingElse) {
  const test::TempDir state;
  QuantizeOptions options;
  options.source = test::tiny_novel();
  options.recipe = load_recipe("smoothquant+");
  options.calibration = {1024, 256, 128};
  const OutlierStudy before = as_it_is();
  const auto smoothed = [&] {
    const TransformedLayers layers(options, state.path() / "state", *backend_);
    return study_outliers(
        spec_, *checkpoint_, [&](std::int64_t layer) { return layers.load(layer); }, ids_, 128,
        *backend_);
  };
  const OutlierStudy after = smoothed();
  // What norms feed is smoothed, as the recipe says.
  double ratio_before = 0, ratio_after = 0;
  for (std::size_t i = 0; i < before.sites.size(); ++i) {
    if (!before.sites[i].row.site.ends_with("_in")) continue;
    ratio_before += before.sites[i].row.ratio;
    ratio_after += after.sites[i].row.ratio;
  }
  EXPECT_LT(ratio_after, 0.9 * ratio_before);
  for (std::size_t i = 0; i < before.layer_absmax.size(); ++i) {
    EXPECT_NEAR(after.layer_absmax[i] / before.layer_absmax[i], 1, 1e-3);
  }
  // A second run takes up the state and finds the same.
  options.on_saved = [](const std::string& step) { ADD_FAILURE() << step << " was done again"; };
  EXPECT_EQ(outliers_table({"m", "r", 1, 1, smoothed(), {}, {}}),
            outliers_table({"m", "r", 1, 1, after, {}, {}}));
}

TEST_F(OutlierStudyTest, ARecipeMustTransform) {
  const test::TempDir state;
  QuantizeOptions options;
  options.source = test::tiny_novel();
  options.recipe = load_recipe("rtn");
  EXPECT_ERROR(TransformedLayers(options, state.path(), *backend_), ErrorKind::kUsage,
               "transforms nothing");
}

TEST_F(OutlierStudyTest, ATextWithoutTokensIsRefused) {
  ids_.clear();
  EXPECT_ERROR(as_it_is(), ErrorKind::kUsage, "no tokens");
}

TEST(SiteOutliers, ReadsTheSameInPieces) {
  const Json data = golden("rounding.json");
  const auto values = data["values"].get<std::vector<float>>();
  SiteOutliers whole, pieces;
  whole.add(values.data(), 3, 97);
  pieces.add(values.data(), 1, 97);
  pieces.add(values.data() + 97, 2, 97);
  EXPECT_EQ(whole.kurtosis(), pieces.kurtosis());
  EXPECT_EQ(whole.absmax(), pieces.absmax());
  EXPECT_EQ(whole.rows(), pieces.rows());
}

TEST(SiteOutliers, SixIsAnOutlier) {
  const float x[] = {6, 5.999f, -6, 0, 7, 1};
  SiteOutliers seen;
  seen.add(x, 3, 2);
  EXPECT_THAT(seen.outlier_rows()[0], testing::ElementsAre(0, 1, 2));
  EXPECT_TRUE(seen.outlier_rows()[1].empty());
}

TEST(SiteOutliers, AConstantHasNoKurtosis) {
  const float x[] = {2, 2, 2, 2};
  SiteOutliers seen;
  EXPECT_EQ(seen.kurtosis(), 0);
  seen.add(x, 2, 2);
  EXPECT_EQ(seen.kurtosis(), 0);
}

TEST(Features, TheCriterionIsBothShares) {
  EXPECT_TRUE((FeatureDimension{0, 0.25, 0.06, 6}.emergent()));
  EXPECT_FALSE((FeatureDimension{0, 0.24, 0.5, 6}.emergent()));
  EXPECT_FALSE((FeatureDimension{0, 0.5, 0.05, 6}.emergent()));
  EXPECT_TRUE((LargeActivation{0, 0, 0, 0, -101, 1000}.massive()));
  EXPECT_FALSE((LargeActivation{0, 0, 0, 0, 100, 2000}.massive()));
  EXPECT_FALSE((LargeActivation{0, 0, 0, 0, 500, 999}.massive()));
}

TEST(OutlierReport, SentencesComeFromTheNumbers) {
  OutlierComparison study;
  study.model = "m";
  study.recipe = "r";
  study.channels = 8;
  study.tokens = 4;
  study.piece = [](std::int64_t) { return "<b>"; };
  OutlierSite site;
  site.row = {1, "attn_in", 12, 30, 5};
  site.channel_absmax = {1, 12};
  study.before.sites = {site};
  study.before.features = {{5, 0.5, 0.5, 12}, {6, 0.1, 0.5, 7}};
  study.before.activations = {{1, 0, 0, 3, -150, 1200}};
  study.before.layer_absmax = {150};
  study.before.layer_median = {0.125};
  study.after = study.before;
  study.after->sites[0].row.ratio = 3;
  const StudyReport report = outliers_report(study);
  ASSERT_EQ(report.findings.size(), 3u);
  EXPECT_THAT(
      report.findings[0],
      HasSubstr("channel 5 reaches 12.0, 30.0 times the median channel; after r it is 3.0"));
  EXPECT_THAT(report.findings[1],
              HasSubstr("1 of 8 feature dimensions are emergent outliers, and 2"));
  EXPECT_THAT(report.findings[2], HasSubstr("a massive activation"));
  EXPECT_THAT(html_page(report), HasSubstr("&lt;b&gt;"));
  EXPECT_EQ(outliers_table(study).size(), 1u + 2 * 2);
}

}  // namespace
}  // namespace nibble
