// Sequences longer than what an evaluation has in memory at once: the pieces must fit together.
#include "eval/chunks.h"

#include <random>

#include "eval/logits.h"
#include "eval/perplexity.h"
#include "eval/row_math.h"
#include "eval/tasks/likelihood.h"
#include "runtime/synthetic.h"
#include "support/exact_backend.h"
#include "support/test_data.h"
#include "support/tolerance.h"
#include "tensor/npy.h"

namespace nibble {
namespace {

class LongSequence : public testing::Test {
 protected:
  LongSequence() {
    std::mt19937 random(1);
    const auto vocab = static_cast<std::uint32_t>(model_.spec().vocab);
    for (std::int64_t i = 0; i < kRowsPerCall + 400; ++i) {
      ids_.push_back(static_cast<std::int32_t>(random() % vocab));
    }
    logits_ = model_.logits(Batch::single(ids_));
  }

  // Loss of the token at `position` from the logits of one undivided pass.
  double nll(std::size_t position) const {
    const auto vocab = static_cast<std::size_t>(model_.spec().vocab);
    return negative_log_likelihood({logits_.data<float>() + (position - 1) * vocab, vocab},
                                   ids_[position]);
  }
  double nll(std::size_t begin, std::size_t end) const {
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += nll(i);
    return sum;
  }

  std::unique_ptr<Backend> backend_ = test::exact_backend();
  SyntheticSource source_{"tiny-llama", {}};
  Model model_{source_.spec(), source_, *backend_};
  std::vector<std::int32_t> ids_;
  Tensor logits_;
};

TEST_F(LongSequence, PerplexityAndDivergence) {
  const auto size = static_cast<std::int64_t>(ids_.size());
  const DivergenceResult result = divergence(model_, model_, ids_, {.context = size});
  const double expected = nll(1, ids_.size()) / static_cast<double>(size - 1);
  EXPECT_EQ(result.model.predicted, size - 1);
  EXPECT_NEAR(result.model.mean_nll, expected, 1e-6);
  EXPECT_NEAR(result.reference.mean_nll, expected, 1e-6);
  EXPECT_EQ(result.max_kl, 0);
}

TEST_F(LongSequence, LogitsFile) {
  test::TempDir dir;
  const auto size = static_cast<std::int64_t>(ids_.size());
  write_logits(model_, {1, size, ids_}, dir / "logits.npy");
  const Tensor written = read_npy(dir / "logits.npy");
  ASSERT_EQ(written.elements(), logits_.elements());
  const auto count = static_cast<std::size_t>(logits_.elements());
  EXPECT_LT(test::max_abs_error({written.data<float>(), count}, {logits_.data<float>(), count}),
            1e-5);
}

TEST_F(LongSequence, Likelihood) {
  const std::ptrdiff_t split = 100;
  const TokenPair pair = {{ids_.begin(), ids_.begin() + split}, {ids_.begin() + split, ids_.end()}};
  const auto result = likelihoods(model_, std::vector{pair}, 10000, "test");
  EXPECT_NEAR(result[0].log_likelihood / -nll(100, ids_.size()), 1, 1e-6);
}

}  // namespace
}  // namespace nibble
