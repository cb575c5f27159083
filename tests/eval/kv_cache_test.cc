// What a quantized KV cache costs trained models, against keys and values as they were computed.
#include <cmath>

#include "eval/perplexity.h"
#include "eval/text.h"
#include "runtime/session.h"
#include "support/test_data.h"

namespace nibble {
namespace {

DivergenceResult cost(const std::filesystem::path& model, const std::filesystem::path& text,
                      KvFormat format) {
  const auto backend = make_cpu_backend();
  const Session session = open_session(model, *backend);
  const auto ids = read_text_ids(*session.tokenizer, text);
  WindowOptions options;
  options.max_tokens = 8192;
  options.kv_type = format;
  const DivergenceResult result = divergence(*session.model, *session.model, ids, options);
  testing::Test::RecordProperty("mean_kl", std::to_string(result.mean_kl));
  return result;
}

double change(const DivergenceResult& result) {
  return result.model.perplexity / result.reference.perplexity - 1;
}

// 8 bits stay within what a kernel may round by itself; 4 bits are a choice of the user's.
void check(const std::filesystem::path& model, const std::filesystem::path& text) {
  const DivergenceResult exact = cost(model, text, KvType::kF32);
  EXPECT_LT(exact.mean_kl, 1e-9);
  const DivergenceResult bytes = cost(model, text, KvType::kInt8);
  EXPECT_GT(bytes.mean_kl, 1e-6);
  EXPECT_LT(bytes.mean_kl, 5e-4);
  EXPECT_LT(std::abs(change(bytes)), 1e-3);
  const DivergenceResult nibbles = cost(model, text, KvType::kInt4);
  EXPECT_GT(nibbles.mean_kl, bytes.mean_kl);
  EXPECT_LT(nibbles.mean_kl, 0.08);
  EXPECT_LT(std::abs(change(nibbles)), 0.06);
  const DivergenceResult mixed = cost(model, text, {KvType::kInt4, true});
  EXPECT_LT(mixed.mean_kl, 0.7 * nibbles.mean_kl);
  EXPECT_LT(std::abs(change(mixed)), 0.04);
  const DivergenceResult floats = cost(model, text, KvType::kFp8);
  EXPECT_GT(floats.mean_kl, bytes.mean_kl);
  EXPECT_LT(floats.mean_kl, 0.005);
}

TEST(KvCacheCost, OnBundledText) {
  check(test::tiny_novel(), test::source_dir() / "data/verify.txt");
}

TEST(KvCacheCost, OnHeldOutTextWithALargerModel) {
  NIBBLE_NEEDS_DATA("models/novel-28m/config.json");
  NIBBLE_NEEDS_DATA("text/eval/novels_heldout.txt");
  check(test::data_dir() / "models/novel-28m", test::data_dir() / "text/eval/novels_heldout.txt");
}

}  // namespace
}  // namespace nibble
