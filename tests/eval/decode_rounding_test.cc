// What kernels that round cost where tokens are decoded one by one, over caches of every type,
// against kernels that do not.
#include "eval/perplexity.h"
#include "eval/text.h"
#include "runtime/session.h"
#include "support/exact_backend.h"
#include "support/test_data.h"

namespace nibble {
namespace {

constexpr std::int64_t kTokens = 768;  // the last half is decoded

// Mean KL in nats of the decoded tokens; both models see the text's own tokens.
double decoding_cost(const std::filesystem::path& path, KvType type) {
  const auto rounding = make_cpu_backend();
  const auto exact = test::exact_backend();
  const Session rounded = open_session(path, *rounding);
  const Session reference = open_session(path, *exact);
  const auto ids = read_text_ids(*reference.tokenizer, test::source_dir() / "data/verify.txt");
  const ModelSpec& spec = reference.model->spec();
  KvCache rounded_cache(spec, kTokens, type);
  KvCache reference_cache(spec, kTokens, type);
  const auto next = [&](std::size_t begin, std::size_t end) {
    const std::vector<std::int32_t> part(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                         ids.begin() + static_cast<std::ptrdiff_t>(end));
    const Tensor q = rounded.model->last_logits(Batch::single(part, &rounded_cache));
    const Tensor p = reference.model->last_logits(Batch::single(part, &reference_cache));
    const auto vocab = static_cast<std::size_t>(spec.vocab);
    return kl_divergence({p.data<float>(), vocab}, {q.data<float>(), vocab});
  };
  next(0, kTokens / 2);
  double sum = 0;
  for (std::size_t i = kTokens / 2; i < kTokens; ++i) sum += next(i, i + 1);
  return sum / (kTokens - kTokens / 2);
}

// The most that rounding may cost over a cache of a type. Codes of 4 bits are so coarse that the
// rounding of the layers before them changes some, and for rows whose ranges are fitted the choice
// of a range, which is nearly all of what is seen there.
struct Limit {
  KvType type;
  double kl;
};

class DecodeRounding : public testing::TestWithParam<Limit> {
 protected:
  static void check(const std::filesystem::path& path) {
    const double kl = decoding_cost(path, GetParam().type);
    RecordProperty("mean_kl", std::to_string(kl));
    EXPECT_LT(kl, GetParam().kl);
  }
};

TEST_P(DecodeRounding, BundledModel) { check(test::tiny_novel()); }

TEST_P(DecodeRounding, LargerModel) {
  NIBBLE_NEEDS_DATA("models/novel-28m/config.json");
  check(test::data_dir() / "models/novel-28m");
}

constexpr Limit kLimits[] = {{KvType::kF32, 1.5e-4},
                             {KvType::kBF16, 1.5e-4},
                             {KvType::kInt8, 3.5e-4},
                             {KvType::kInt4, 0.025}};

INSTANTIATE_TEST_SUITE_P(, DecodeRounding, testing::ValuesIn(kLimits),
                         [](const auto& test) { return std::string(to_string(test.param.type)); });

}  // namespace
}  // namespace nibble
