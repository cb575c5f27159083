// The forward pass as callers meet it: long sequences, caches of 16 bits, misuse, trained models.
#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>

#include "model/oracles.h"
#include "model/tokenizer/tokenizer.h"
#include "support/exact_backend.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

using test::floats;
using test::Oracle;

Oracle golden(const char* name) { return Oracle(test::source_dir() / "tests/golden/archs" / name); }

std::vector<std::int32_t> repeated_ids(const Oracle& oracle, std::int64_t count) {
  std::vector<std::int32_t> ids;
  const std::vector<std::int32_t> once = oracle.row(0);
  for (std::int64_t i = 0; i < count; ++i) {
    ids.push_back(once[static_cast<std::size_t>((i * i + i / 7) % oracle.length())]);
  }
  return ids;
}

// 5000 tokens are computed in pieces; the same through a cache in other cuts, and among others.
TEST(LongSequence, DoesNotDependOnHowItIsCut) {
  for (const char* name : {"llama_odd_sizes", "mistral_window_old", "llama_dynamic_old"}) {
    SCOPED_TRACE(name);
    const Oracle oracle = golden(name);
    const Model model(oracle.spec, *oracle.checkpoint, *oracle.backend);
    const std::int64_t rows = std::string(name) == "mistral_window_old" ? 5000 : 2500;
    const std::vector<std::int32_t> ids = repeated_ids(oracle, rows);
    const Tensor whole = model.logits(Batch::single(ids));

    Batch among;
    among.ids.assign(ids.begin(), ids.begin() + 3);
    among.ids.insert(among.ids.end(), ids.begin(), ids.end());
    among.sequences = {{3, 0, nullptr}, {rows, 0, nullptr}};
    const Tensor mixed = model.logits(among);
    const auto skipped = static_cast<std::size_t>(3 * oracle.spec.vocab);
    EXPECT_LE(test::max_abs_error(floats(mixed).subspan(skipped), floats(whole)), 1e-5);

    // Frequencies that follow the length do so for all rows of a call, also those of early pieces.
    const Tensor prefix = model.logits(Batch::single({ids.begin(), ids.begin() + 2000}));
    const double shift =
        test::max_abs_error(floats(prefix), floats(whole).first(floats(prefix).size()));
    if (std::string(name) == "llama_dynamic_old") {
      EXPECT_GT(shift, 1e-2);
      continue;
    }
    EXPECT_LE(shift, 1e-5);
    KvCache cache(oracle.spec, rows, KvType::kF32);
    const Tensor start = model.logits(Batch::single({ids.begin(), ids.begin() + 1999}, &cache));
    const Tensor rest = model.logits(Batch::single({ids.begin() + 1999, ids.end()}, &cache));
    const auto cut = static_cast<std::size_t>(1999 * oracle.spec.vocab);
    EXPECT_LE(test::max_abs_error(floats(start), floats(whole).first(cut)), 1e-5);
    EXPECT_LE(test::max_abs_error(floats(rest), floats(whole).subspan(cut)), 1e-5);
  }
}

TEST(LikeliestTokens, AreThoseOfTheLastLogits) {
  const Oracle oracle = golden("llama_odd_sizes");
  const Model model(oracle.spec, *oracle.checkpoint, *oracle.backend);
  Batch batch;
  batch.ids = repeated_ids(oracle, 5 + 1 + 9);
  batch.sequences = {{5, 0, nullptr}, {1, 0, nullptr}, {9, 0, nullptr}};
  const Tensor logits = model.last_logits(batch);
  std::vector<std::int32_t> expected;
  for (std::int64_t i = 0; i < 3; ++i) {
    const float* const row = logits.data<float>() + i * oracle.spec.vocab;
    expected.push_back(
        static_cast<std::int32_t>(std::max_element(row, row + oracle.spec.vocab) - row));
  }
  EXPECT_EQ(model.likeliest_tokens(batch), expected);
}

TEST(KvCache, OfSixteenBitsCostsItsRounding) {
  const Oracle oracle = golden("llama_mqa_bias_headdim");
  const Model model(oracle.spec, *oracle.checkpoint, *oracle.backend);
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    KvCache cache(oracle.spec, oracle.length(), kv_type_of(dtype));
    const Tensor logits = model.logits(Batch::single(oracle.row(0), &cache));
    const double error =
        test::relative_error(floats(logits), oracle.expected_rows(0, 0, oracle.length()));
    EXPECT_GT(error, test::unit_roundoff(dtype) / 100);
    EXPECT_LT(error, test::unit_roundoff(dtype) * 4);
  }
}

TEST(KvCache, TruncationForgetsTheRest) {
  const Oracle oracle = golden("qwen3_mqa_old");
  const Model model(oracle.spec, *oracle.checkpoint, *oracle.backend);
  KvCache cache(oracle.spec, oracle.length(), KvType::kF32);
  const std::vector<std::int32_t> ids = oracle.row(0);
  model.hidden(Batch::single({ids.begin(), ids.begin() + 10}, &cache));
  model.hidden(Batch::single({ids.rbegin(), ids.rbegin() + 10}, &cache));
  cache.truncate(10);
  const Tensor rest = model.logits(Batch::single({ids.begin() + 10, ids.end()}, &cache));
  EXPECT_LE(test::max_abs_error(floats(rest), oracle.expected_rows(0, 10, oracle.length() - 10)),
            5e-5);
}

TEST(Misuse, IsAUsageError) {
  const Oracle oracle = golden("gpt2_unscaled_untied");
  const Model model(oracle.spec, *oracle.checkpoint, *oracle.backend);
  const auto usage = [&](const Batch& batch, const char* text) {
    EXPECT_ERROR(model.logits(batch), ErrorKind::kUsage, text);
  };
  usage(Batch::single({1, 64}), "token 64");
  usage(Batch::single({-1}), "token -1");
  usage(Batch::single(std::vector<std::int32_t>(49, 1)), "48 positions");
  KvCache small(oracle.spec, 4, KvType::kF32);
  usage(Batch::single({1, 2, 3, 4, 5}, &small), "do not fit");
  Batch batch = Batch::single({1, 2}, &small);
  batch.sequences[0].first_position = 3;
  usage(batch, "continues at position 3");
  batch.sequences[0] = {2, 1, nullptr};
  usage(batch, "needs a cache");
  batch.sequences[0] = {3, 0, nullptr};
  usage(batch, "2 ids");
  EXPECT_EQ(small.size(), 0);
  EXPECT_ERROR(Batch::windows({1, 2, 3}, 2), ErrorKind::kUsage, "windows of 2");
  EXPECT_ERROR(KvCache(oracle.spec, -1, KvType::kF32), ErrorKind::kUsage, "-1 tokens");
}

TEST(EmptyBatch, HasNoLogits) {
  const Oracle oracle = golden("qwen3_mqa_old");
  const Model model(oracle.spec, *oracle.checkpoint, *oracle.backend);
  EXPECT_EQ(model.logits({}).shape(), (Shape{0, oracle.spec.vocab}));
  KvCache cache(oracle.spec, 4, KvType::kF32);
  EXPECT_EQ(model.logits(Batch::single({}, &cache)).dim(0), 0);
  EXPECT_ERROR(model.last_logits(Batch::single({}, &cache)), ErrorKind::kUsage, "no last one");
}

TEST(TrainedModel, TinyNovelNextTokenLogits) {
  const auto checkpoint = open_checkpoint(test::tiny_novel());
  const auto backend = test::exact_backend();
  const Model model(build_spec(checkpoint->config()), *checkpoint, *backend);
  const Json reference = read_json_file((test::tiny_novel() / "reference.json").string());
  const auto ids = reference["greedy_ids"].get<std::vector<std::int32_t>>();
  // "It was a dark and stormy night" is the first nine tokens, BOS included.
  const Tensor logits = model.last_logits(Batch::single({ids.begin(), ids.begin() + 9}));
  const Json& top = reference["next_top5"];
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_NEAR(floats(logits)[top["ids"][i].get<std::size_t>()], top["logits"][i].get<float>(),
                5e-5);
  }
}

// Mean negative log-likelihood of ids[1...] given what comes before.
double sum_nll(const Tensor& logits, const std::vector<std::int32_t>& ids) {
  const std::int64_t vocab = logits.dim(1);
  double sum = 0;
  for (std::size_t t = 0; t + 1 < ids.size(); ++t) {
    const auto row = floats(logits).subspan(t * static_cast<std::size_t>(vocab),
                                            static_cast<std::size_t>(vocab));
    double total = 0;
    for (const float value : row) total += std::exp(static_cast<double>(value));
    sum += std::log(total) - static_cast<double>(row[static_cast<std::size_t>(ids[t + 1])]);
  }
  return sum;
}

std::vector<std::string> split_stories(const std::string& text) {
  const std::string mark = "<|endoftext|>";
  const char* space = " \t\r\n";
  std::vector<std::string> stories;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(mark, begin), text.size());
    const std::size_t first = text.find_first_not_of(space, begin);
    if (first < end) {
      stories.push_back(text.substr(first, text.find_last_not_of(space, end - 1) + 1 - first));
    }
    begin = end + mark.size();
  }
  return stories;
}

// Values of GOLDEN.txt beside the checkpoint, from an independent float64 implementation.
TEST(TrainedModel, Stories260kLogitsAndLikelihood) {
  NIBBLE_NEEDS_DATA("models/stories260k/stories260K.bin");
  NIBBLE_NEEDS_DATA("text/calib/tinystories_sample.utf8");
  const auto folder = test::data_dir() / "models/stories260k";
  const auto checkpoint = open_checkpoint(folder / "stories260K.bin");
  const auto tokenizer = load_tokenizer(folder / "tok512.bin");
  const auto backend = test::exact_backend();
  const Model model(build_spec(checkpoint->config()), *checkpoint, *backend);

  std::ifstream file(test::data_dir() / "text/calib/tinystories_sample.utf8", std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  std::vector<std::string> stories = split_stories(text);
  ASSERT_GE(stories.size(), 200u);
  double nll = 0;
  std::size_t predicted = 0;
  for (std::size_t i = 0; i < 200; ++i) {
    std::vector<std::int32_t> ids = tokenizer->encode(stories[i]);
    ids.resize(std::min<std::size_t>(ids.size(), 256));
    const Tensor logits = model.logits(Batch::single(ids));
    nll += sum_nll(logits, ids);
    predicted += ids.size() - 1;
    if (i == 0) {
      const float first[] = {-6.22291f, 8.40434f, -6.22374f, -6.22254f, -6.22195f};
      const float last[] = {-11.51769f, -1.59661f, -11.51738f, -11.51689f, -11.5164f};
      EXPECT_LE(test::max_abs_error(floats(logits).first(5), first), 2e-5);
      EXPECT_LE(test::max_abs_error(floats(logits).subspan((ids.size() - 1) * 512).first(5), last),
                2e-5);
    }
  }
  EXPECT_EQ(predicted, 50651u);
  EXPECT_NEAR(nll / static_cast<double>(predicted), 1.438498, 1e-6);
}

}  // namespace
}  // namespace nibble
