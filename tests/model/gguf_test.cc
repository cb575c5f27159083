// Models and tokenizers out of GGUF files.
#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf_tokenizer.h"
#include "model/arch.h"
#include "model/model.h"
#include "model/tokenizer/tokenizer.h"
#include "support/exact_backend.h"
#include "support/test_data.h"

namespace nibble {
namespace {

TEST(GgufModel, GivesTheLogitsOfLlamaCppsConventions) {
  const auto folder = test::source_dir() / "tests/golden/checkpoint/gguf";
  const Json golden = read_json_file((folder / "expected.json").string());
  const auto checkpoint = open_checkpoint(folder / "model.gguf");
  const auto backend = test::exact_backend();
  const Model model(build_spec(checkpoint->config()), *checkpoint, *backend);
  const auto ids = golden.at("ids").get<std::vector<std::int32_t>>();
  const Tensor computed = to_float(model.logits(Batch::single(ids)));
  const std::vector<float> logits(computed.data<float>(),
                                  computed.data<float>() + computed.elements());
  std::size_t i = 0;
  double largest = 0;
  for (const Json& row : golden.at("logits")) {
    for (const Json& value : row) {
      largest = std::max(largest, std::abs(value.get<double>()));
      EXPECT_NEAR(static_cast<double>(logits.at(i)), value.get<double>(), 2e-5) << i;
      ++i;
    }
  }
  EXPECT_EQ(i, logits.size());
  EXPECT_GT(largest, 0.5);
}

TEST(GgufModel, BringsItsTokenizer) {
  const auto folder = test::source_dir() / "tests/golden/checkpoint/gguf";
  const auto checkpoint = open_checkpoint(folder / "model.gguf");
  const auto tokenizer = make_tokenizer(checkpoint->documents());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocab_size(), 24);
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  // A space comes first; "bc" is better than "▁ab", which is better than nothing.
  EXPECT_EQ(tokenizer->encode("abc"), (std::vector<std::int32_t>{1, 11}));
  EXPECT_EQ(tokenizer->encode("ab"), (std::vector<std::int32_t>{1, 9}));
  EXPECT_EQ(tokenizer->encode("A", {.add_special = false}), (std::vector<std::int32_t>{3, 12}));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("abc ab A")), "abc ab A");
}

}  // namespace
}  // namespace nibble
