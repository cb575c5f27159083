// Logits of small random checkpoints against transformers in float32, however the text is cut.
#include "model/oracles.h"
#include "model/rope.h"
#include "support/forgetful_backend.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

using test::Oracle;

constexpr double kTolerance = 5e-5;

// Frequencies that change with the length make what is cached differ from what one pass computes.
bool steps_agree(const Oracle& oracle) {
  const std::optional<RopeSpec>& rope = oracle.spec.attention.rope;
  if (!oracle.spec.decoder) return false;
  if (!rope || !depends_on_length(*rope)) return true;
  const std::int64_t limit =
      rope->kind == RopeKind::kDynamic ? rope->max_positions : rope->original_max_positions;
  return oracle.length() <= limit;
}

class OracleTest : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(OracleTest, OnePass) {
  const Oracle oracle(GetParam());
  const Model model(oracle.spec, *oracle.checkpoint, *oracle.backend);
  for (std::int64_t b = 0; b < oracle.ids.dim(0); ++b) {
    const Tensor logits = model.logits(Batch::single(oracle.row(b)));
    EXPECT_LE(
        test::max_abs_error(test::floats(logits), oracle.expected_rows(b, 0, oracle.length())),
        kTolerance);
  }
}

TEST_P(OracleTest, BatchOfSequences) {
  const Oracle oracle(GetParam());
  const Model model(oracle.spec, *oracle.checkpoint, *oracle.backend);
  const Tensor logits = model.logits(Batch::windows(oracle.all_ids(), oracle.length()));
  EXPECT_LE(test::max_abs_error(test::floats(logits), test::floats(oracle.expected)), kTolerance);
}

TEST_P(OracleTest, TokenByToken) {
  const Oracle oracle(GetParam());
  if (!steps_agree(oracle)) GTEST_SKIP() << "one pass is the only way to compute this model";
  const Model model(oracle.spec, *oracle.checkpoint, *oracle.backend);
  KvCache cache(oracle.spec, oracle.length(), KvType::kF32);
  const std::vector<std::int32_t> ids = oracle.row(0);
  for (std::int64_t t = 0; t < oracle.length(); ++t) {
    const Tensor logits =
        model.last_logits(Batch::single({ids[static_cast<std::size_t>(t)]}, &cache));
    ASSERT_LE(test::max_abs_error(test::floats(logits), oracle.expected_rows(0, t, 1)), kTolerance)
        << "token " << t;
  }
  EXPECT_EQ(cache.size(), oracle.length());
}

// Two sequences with caches of their own, one 7 tokens ahead of the other, in shared calls.
TEST_P(OracleTest, ChunksOfTwoSequencesWithCaches) {
  const Oracle oracle(GetParam());
  if (!steps_agree(oracle)) GTEST_SKIP() << "one pass is the only way to compute this model";
  const Model model(oracle.spec, *oracle.checkpoint, *oracle.backend);
  KvCache first(oracle.spec, oracle.length(), KvType::kF32);
  KvCache second(oracle.spec, oracle.length(), KvType::kF32);
  const std::vector<std::int32_t> a = oracle.row(0);
  const std::vector<std::int32_t> b = oracle.row(1);
  const std::int64_t rest = oracle.length() - 7;

  const Tensor start = model.logits(Batch::single({a.begin(), a.begin() + 7}, &first));
  EXPECT_LE(test::max_abs_error(test::floats(start), oracle.expected_rows(0, 0, 7)), kTolerance);

  Batch batch;
  batch.ids.assign(a.begin() + 7, a.end());
  batch.ids.insert(batch.ids.end(), b.begin(), b.begin() + 5);
  batch.sequences = {{rest, 7, &first}, {5, 0, &second}};
  const Tensor mixed = model.logits(batch);
  const auto cut = static_cast<std::size_t>(rest * oracle.width());
  EXPECT_LE(test::max_abs_error(test::floats(mixed).first(cut), oracle.expected_rows(0, 7, rest)),
            kTolerance);
  EXPECT_LE(test::max_abs_error(test::floats(mixed).subspan(cut), oracle.expected_rows(1, 0, 5)),
            kTolerance);
}

// The same bits when chains leave nothing between their ops, and no chain that the contract
// forbids.
TEST_P(OracleTest, ReadsNothingThatAChainForgets) {
  const Oracle oracle(GetParam());
  test::ForgetfulBackend forgetful(test::exact_backend());
  const Model model(oracle.spec, *oracle.checkpoint, *oracle.backend);
  const Model same(oracle.spec, *oracle.checkpoint, forgetful);
  const Batch batch = Batch::windows(oracle.all_ids(), oracle.length());
  const Tensor expected = model.logits(batch);
  const Tensor logits = same.logits(batch);
  EXPECT_TRUE(std::ranges::equal(test::floats(expected), test::floats(logits)));
  EXPECT_GT(forgetful.forgotten(), 0);
}

INSTANTIATE_TEST_SUITE_P(All, OracleTest, testing::ValuesIn(test::oracle_directories()),
                         [](const auto& test) { return test::oracle_name(test.param); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(OracleTest);

}  // namespace
}  // namespace nibble
