#include "runtime/generate.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "quantize/apart_backend.h"
#include "support/exact_backend.h"
#include "support/modified_source.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using Ids = std::vector<std::int32_t>;

class GenerateTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    backend_ = test::exact_backend();
    session_ = open_session(test::tiny_novel(), *backend_);
    reference_ = read_json_file((test::tiny_novel() / "reference.json").string());
  }
  static void TearDownTestSuite() {
    session_ = Session();
    backend_.reset();
  }

  static Ids prompt() {
    return session_.tokenizer->encode(reference_["greedy_prompt"].get<std::string>());
  }
  // transformers' greedy continuation of the prompt.
  static Ids golden_ids() {
    const Ids all = reference_["greedy_ids"].get<Ids>();
    return {all.begin() + static_cast<std::ptrdiff_t>(prompt().size()), all.end()};
  }
  static GenerateOptions greedy() {
    GenerateOptions options;
    options.max_new_tokens = static_cast<std::int64_t>(golden_ids().size());
    options.stop_ids = default_stop_ids(session_);
    return options;
  }
  // The bundled model with its block linears changed.
  static Session modified(const test::ModifiedSource::Change& change, KvType kv_type) {
    Session session = open_session(test::tiny_novel(), *backend_, kv_type);
    session.model = std::make_unique<Model>(
        session.model->spec(), test::ModifiedSource(*session.checkpoint, change), *backend_);
    return session;
  }

  static inline std::unique_ptr<Backend> backend_;
  static inline Session session_;
  static inline Json reference_;
};

TEST_F(GenerateTest, GreedyTextIsThatOfTransformers) {
  std::string streamed;
  const GenerateResult result = generate(session_, prompt(), greedy(), [&](std::string_view piece) {
    streamed += piece;
    return true;
  });
  EXPECT_EQ(result.ids, golden_ids());
  EXPECT_EQ(reference_["greedy_prompt"].get<std::string>() + result.text,
            reference_["greedy_text"].get<std::string>());
  EXPECT_EQ(streamed, result.text);
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(result.prompt_tokens, static_cast<std::int64_t>(prompt().size()));
  EXPECT_GT(result.tokens_per_second, 0);
}

TEST_F(GenerateTest, CallsAreIssuedBeforeTheTokensTheyTake) {
  test::Reads reads;
  const auto backend = test::apart_backend(test::exact_backend(), &reads);
  for (const KvType type : {KvType::kF32, KvType::kF16}) {
    const Session session = open_session(test::tiny_novel(), *backend, type);
    const Session near = open_session(test::tiny_novel(), *backend_, type);
    reads.most = 0;
    EXPECT_EQ(generate(session, prompt(), greedy()).ids, golden_ids());
    EXPECT_EQ(reads.most, type == KvType::kF16 ? 1 : 2);  // F16 is looked at after every call
    GenerateOptions options = greedy();
    options.stop_ids = {golden_ids()[5]};
    options.prefill_chunk = 3;
    const Ids expected = golden_ids();
    EXPECT_EQ(generate(session, prompt(), options).ids,
              Ids(expected.begin(), std::ranges::find(expected, expected[5])));
    options.max_new_tokens = 1;
    EXPECT_EQ(generate(session, prompt(), options).ids, Ids{expected[0]});
    options = greedy();
    options.sampling.temperature = 0.8f;
    options.sampling.seed = 3;
    EXPECT_EQ(generate(session, prompt(), options).ids, generate(near, prompt(), options).ids);
  }
}

TEST_F(GenerateTest, EveryCacheTypeGivesTheGreedyText) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kBF16}) {
    const Session session = open_session(test::tiny_novel(), *backend_, type);
    EXPECT_EQ(generate(session, prompt(), greedy()).ids, golden_ids()) << to_string(type);
  }
}

TEST_F(GenerateTest, PrefillInChunksChangesNothing) {
  GenerateOptions options = greedy();
  options.prefill_chunk = 3;
  EXPECT_EQ(generate(session_, prompt(), options).ids, golden_ids());
}

// The cache starts at 256 rows and has to grow.
TEST_F(GenerateTest, LongAnswersOutgrowTheFirstCache) {
  GenerateOptions options = greedy();
  options.max_new_tokens = 300;
  const GenerateResult result = generate(session_, prompt(), options);
  ASSERT_EQ(result.ids.size(), 300u);
  // One pass over the whole text, without a cache, must predict each token that was chosen.
  Ids all = prompt();
  const std::size_t first = all.size();
  all.insert(all.end(), result.ids.begin(), result.ids.end());
  const Tensor logits = session_.model->logits(Batch::single(all));
  const auto vocab = static_cast<std::size_t>(logits.dim(1));
  std::size_t agreed = 0;
  for (std::size_t i = first; i < all.size(); ++i) {
    agreed += argmax({logits.data<float>() + (i - 1) * vocab, vocab}) == all[i] ? 1u : 0u;
  }
  // A BF16 cache may tip a near tie, hardly more than once in a hundred.
  EXPECT_GE(agreed, 297u);
}

TEST_F(GenerateTest, StopStringsEndTheTextBeforeThem) {
  GenerateOptions options = greedy();
  options.stop = {"blowing"};
  std::string streamed;
  const GenerateResult result = generate(session_, prompt(), options, [&](std::string_view piece) {
    streamed += piece;
    return true;
  });
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_EQ(result.text, ", and the wind was ");
  EXPECT_EQ(streamed, result.text);
}

TEST_F(GenerateTest, StopTokensEndTheAnswerAndAreNotPartOfIt) {
  GenerateOptions options = greedy();
  options.stop_ids = {golden_ids()[3]};
  const GenerateResult result = generate(session_, prompt(), options);
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  const Ids golden = golden_ids();
  EXPECT_EQ(result.ids, Ids(golden.begin(), golden.begin() + 3));
}

TEST_F(GenerateTest, TheCallbackCanEndIt) {
  int pieces = 0;
  const GenerateResult result =
      generate(session_, prompt(), greedy(), [&](std::string_view) { return ++pieces < 3; });
  EXPECT_EQ(pieces, 3);
  EXPECT_EQ(result.finish_reason, FinishReason::kCancelled);
}

TEST_F(GenerateTest, TheContextLimitsPromptAndAnswer) {
  GenerateOptions options = greedy();
  options.context = static_cast<std::int64_t>(prompt().size()) + 2;
  const GenerateResult result = generate(session_, prompt(), options);
  EXPECT_EQ(result.ids.size(), 2u);
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  options.context = static_cast<std::int64_t>(prompt().size()) - 1;
  EXPECT_ERROR(generate(session_, prompt(), options), ErrorKind::kUsage, "context");
  EXPECT_ERROR(generate(session_, Ids(3000, 5), greedy()), ErrorKind::kUsage, "2048");
}

TEST_F(GenerateTest, NoNewTokensIsAnEmptyAnswer) {
  GenerateOptions options = greedy();
  options.max_new_tokens = 0;
  const GenerateResult result = generate(session_, prompt(), options);
  EXPECT_TRUE(result.ids.empty());
  EXPECT_EQ(result.text, "");
}

TEST_F(GenerateTest, MisuseIsAUsageError) {
  EXPECT_ERROR(generate(session_, {}, greedy()), ErrorKind::kUsage, "prompt is empty");
  EXPECT_ERROR(generate(session_, {1, 4096}, greedy()), ErrorKind::kUsage, "4096");
  EXPECT_ERROR(generate(session_, {1, -1}, greedy()), ErrorKind::kUsage, "-1");
  GenerateOptions options = greedy();
  options.max_new_tokens = -1;
  EXPECT_ERROR(generate(session_, {1}, options), ErrorKind::kUsage, "negative");
  options = greedy();
  options.sampling.top_p = 2;
  EXPECT_ERROR(generate(session_, {1}, options), ErrorKind::kUsage, "top-p");
}

TEST_F(GenerateTest, SeedsReproduceTheText) {
  GenerateOptions options = greedy();
  options.sampling.temperature = 1;
  options.sampling.seed = 3;
  const GenerateResult first = generate(session_, prompt(), options);
  EXPECT_EQ(generate(session_, prompt(), options).ids, first.ids);
  options.sampling.seed = 4;
  EXPECT_NE(generate(session_, prompt(), options).ids, first.ids);
}

TEST_F(GenerateTest, BrokenWeightsAreNotSampledFrom) {
  const Session session = modified(
      [](const std::string& module, std::vector<float> weight, std::int64_t rows,
         std::int64_t cols) {
        if (module.ends_with("0.mlp.down_proj")) {
          weight[0] = std::numeric_limits<float>::quiet_NaN();
        }
        return dense(from_float(weight.data(), DType::kF32, {rows, cols}));
      },
      KvType::kF32);
  EXPECT_ERROR(generate(session, prompt(), greedy()), ErrorKind::kCorrupt, "logit");
}

// Keys of 10^5 times their size do not fit F16; stored as infinity they would silently decide every
// attention.
TEST_F(GenerateTest, AnF16CacheThatOverflowsIsRefused) {
  const auto huge_keys = [](const std::string& module, std::vector<float> weight, std::int64_t rows,
                            std::int64_t cols) {
    if (module.ends_with("k_proj")) {
      for (float& w : weight) w *= 1e5f;
    }
    return dense(from_float(weight.data(), DType::kF32, {rows, cols}));
  };
  EXPECT_ERROR(generate(modified(huge_keys, KvType::kF16), prompt(), greedy()),
               ErrorKind::kUnsupported, "F16 KV cache");
  EXPECT_NO_THROW(generate(modified(huge_keys, KvType::kBF16), prompt(), greedy()));
}

TEST_F(GenerateTest, StopTokensComeFromTheMostSpecificConfiguration) {
  Session session = open_session(test::tiny_novel(), *backend_);
  EXPECT_EQ(default_stop_ids(session), Ids{2});
  session.generation_config = {{"eos_token_id", {2, 7, -5, 1 << 20}}};
  EXPECT_EQ(default_stop_ids(session), (Ids{2, 7}));
  session.generation_config = {{"eos_token_id", nullptr}};
  EXPECT_EQ(default_stop_ids(session), Ids{2});  // config.json
}

// llama2.c's own test text: greedy from BOS.
TEST(GenerateGolden, Stories260kTellsTheGoldenStory) {
  NIBBLE_NEEDS_DATA("models/stories260k/GOLDEN.txt");
  const auto folder = test::data_dir() / "models/stories260k";
  const auto backend = test::exact_backend();
  const Session session = open_session(folder / "stories260K.bin", *backend);
  GenerateOptions options;
  options.max_new_tokens = 200;
  const GenerateResult result = generate(session, {1}, options);
  const std::string golden = read_text_file(folder / "GOLDEN.txt");
  const std::size_t begin = golden.find("Once upon a time");
  const std::size_t end = golden.find("\n\n2. ");
  EXPECT_EQ(result.text, golden.substr(begin, end - begin));
}

}  // namespace
}  // namespace nibble
