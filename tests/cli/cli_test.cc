// The command line as a user meets it: exit status, the one line of an error, JSON on stdout.
#include <algorithm>
#include <fstream>
#include <map>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/app.h"
#include "support/test_data.h"
#include "tensor/npy.h"

namespace nibble {
namespace {

struct Outcome {
  int status;
  std::string out, err;
};

Outcome invoke(const std::vector<std::string>& arguments) {
  std::ostringstream out;
  std::ostringstream err;
  const int status = cli::run_app(arguments, out, err);
  return {status, out.str(), err.str()};
}

Json nibble_json(std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--json", "--quiet"});
  const Outcome outcome = invoke(arguments);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  return parse_json(outcome.out, "stdout");
}

std::string tiny() { return test::tiny_novel().string(); }

// A few thousand tokens of text that belongs to nobody's calibration.
std::string short_text(const test::TempDir& dir, std::size_t bytes = 20'000) {
  const std::string text = read_text_file(test::source_dir() / "data/verify.txt");
  const std::string path = dir / "text.txt";
  std::ofstream(path) << text.substr(0, bytes);
  return path;
}

TEST(CliTest, UsageErrorsAreOneLineAndExitTwo) {
  for (const std::vector<std::string>& bad :
       {std::vector<std::string>{},
        {"fly"},
        {"list", "birds"},
        {"run"},
        {"quantize", tiny()},
        {"run", tiny(), "--threads", "0"},
        {"quantize", tiny(), "/tmp/x", "--recipe", "nonsense"},
        {"quantize", tiny(), "/tmp/x", "--format", "int_four"},
        {"quantize", tiny(), "/tmp/x", "--recipe", "rtn", "--format", "w=int4_g128,a=ggml"},
        {"serve"},
        {"serve", tiny(), "--port", "99999"},
        {"serve", tiny(), "--format", "int_four"},
        {"convert", tiny(), "/tmp/x", "--to", "gptq"},
        {"convert", tiny(), "/tmp/x", "--to", "nonsense"},
        {"convert", tiny(), "/tmp/x", "--to", "gptq", "--format", "w4a16_g128"},
        {"convert", tiny(), "/tmp/x", "--to", "hf", "--preset", "Q4_K_M"},
        {"convert", tiny(), "/tmp/x", "--to", "gguf", "--preset", "Q4_K_XXL"},
        {"bench", "serve"},
        {"bench", "serve", "--url", "ftp://somewhere"},
        {"list", "impls", "--device", "toaster"}}) {
    const Outcome outcome = invoke(bad);
    EXPECT_EQ(outcome.status, 2) << outcome.err;
    EXPECT_THAT(outcome.err, testing::StartsWith("nibble: error: [usage] "));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_EQ(outcome.out, "");
  }
}

TEST(CliTest, MissingAndDamagedModelsExitThree) {
  const test::TempDir dir;
  EXPECT_EQ(invoke({"inspect", dir / "none"}).status, 3);
  std::filesystem::copy(test::tiny_novel(), dir.path(), std::filesystem::copy_options::recursive);
  std::filesystem::resize_file(dir / "model.safetensors", 1'000'000);
  const Outcome outcome = invoke({"run", dir.path().string(), "-p", "x"});
  EXPECT_EQ(outcome.status, 3);
  EXPECT_THAT(outcome.err, testing::HasSubstr("model.safetensors"));
}

TEST(CliTest, HelpAndVersionExitZero) {
  EXPECT_EQ(invoke({"--help"}).status, 0);
  EXPECT_THAT(invoke({"--version"}).out, testing::StartsWith("nibble "));
  EXPECT_THAT(invoke({"quantize", "--help"}).out, testing::HasSubstr("--fail-above-kl"));
}

TEST(CliTest, ListsEveryRegistry) {
  for (const char* what : {"formats", "recipes", "archs", "checkpoints", "impls"}) {
    EXPECT_GT(nibble_json({"list", what})["rows"].size(), 2u) << what;
  }
}

TEST(CliTest, TokenizesAndGeneratesTheGoldenText) {
  const Json golden = read_json_file((test::tiny_novel() / "reference.json").string());
  const std::string prompt = golden["greedy_prompt"];
  const Json tokens = nibble_json({"tokenize", tiny(), "--text", prompt});
  const auto prompt_tokens = tokens["ids"].size();
  const auto wanted = golden["greedy_ids"].size() - prompt_tokens;
  const Json run = nibble_json({"run", tiny(), "-p", prompt, "-n", std::to_string(wanted)});
  EXPECT_EQ(run["full_ids"], golden["greedy_ids"]);
  EXPECT_EQ(run["prompt_tokens"], prompt_tokens);
  EXPECT_EQ(prompt + run["text"].get<std::string>(), run["full_text"]);
}

TEST(CliTest, InspectsAndPlans) {
  const Json inspected = nibble_json({"inspect", tiny()});
  EXPECT_EQ(inspected["bits_per_weight"], 16.0);
  EXPECT_EQ(inspected["architecture"]["name"], "llama");
  EXPECT_EQ(inspected["linears"].size(), 6u * 7u);
  const Json plan = nibble_json({"plan", tiny(), "--recipe", "rtn"});
  EXPECT_NEAR(plan["bits_per_weight"].get<double>(), 4 + 24.0 / 128, 0.1);
}

TEST(CliTest, KeepsRepackedWeightsOnlyWhenAsked) {
  const test::TempDir dir;
  const std::string model = dir / "q";
  const std::string cache = dir / "q/nibble.repacked";
  nibble_json({"quantize", tiny(), model, "--recipe", "rtn", "--no-verify"});
  const std::vector<std::string> run = {"run", model, "-p", "the", "-n", "20"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), run.begin(), run.end());
    return more;
  };
  const Json plain = nibble_json(run);
  EXPECT_FALSE(std::filesystem::exists(cache));
  EXPECT_EQ(nibble_json(with({"--repack-cache"}))["full_ids"], plain["full_ids"]);
  nibble_json(with({"--repack-cache-dir", dir.path().string()}));
  const auto files = std::distance(std::filesystem::directory_iterator(dir.path()), {});
  if (!std::filesystem::exists(cache)) GTEST_SKIP() << "this CPU's kernels take weights as stored";
  EXPECT_EQ(files, 2);  // the model and the cache
  EXPECT_EQ(nibble_json(with({"--repack-cache"}))["full_ids"], plain["full_ids"]);
  std::filesystem::resize_file(cache, 1000);
  const Outcome damaged = invoke(with({"--repack-cache"}));
  EXPECT_EQ(damaged.status, 0);
  EXPECT_THAT(damaged.err, testing::HasSubstr("warning: the cache of repacked weights is damaged"));
  EXPECT_GT(std::filesystem::file_size(cache), 1000u);
}

TEST(CliTest, QuantizesVerifiesAndReloads) {
  const test::TempDir dir;
  const std::string text = short_text(dir);
  const Json report =
      nibble_json({"quantize", tiny(), dir / "q", "--recipe", "rtn", "--verify-text", text});
  EXPECT_GT(report["verify"]["mean_kl"], 0.01);
  EXPECT_LT(report["verify"]["mean_kl"], 0.5);
  EXPECT_EQ(report["verify"]["nan"], 0);
  EXPECT_EQ(report["layers"].size(), 6u);
  const Json kl =
      nibble_json({"eval", "kl", dir / "q", "--reference", tiny(), "--text", text, "--exact"});
  EXPECT_NEAR(kl["mean_kl"].get<double>(), report["verify"]["mean_kl"].get<double>(), 1e-6);
  EXPECT_EQ(nibble_json({"inspect", dir / "q"})["convention"], "compressed-tensors");

  // The target exists now; and a bar that cannot be met is said after the output is complete.
  EXPECT_EQ(invoke({"quantize", tiny(), dir / "q", "--recipe", "rtn"}).status, 2);
  const Outcome missed = invoke({"quantize", tiny(), dir / "q2", "--recipe", "rtn", "--verify-text",
                                 text, "--fail-above-kl", "0.001", "--json", "--quiet"});
  EXPECT_EQ(missed.status, 6) << missed.err;
  EXPECT_GT(parse_json(missed.out, "stdout")["verify"]["mean_kl"], 0.01);
  EXPECT_TRUE(std::filesystem::exists(dir / "q2/config.json"));
}

TEST(CliTest, LogitsOfARoundedModelAreThoseOfTheStoredOne) {
  const test::TempDir dir;
  Tensor ids = Tensor::allocate(DType::kI32, {1, 24});
  for (int i = 0; i < 24; ++i) ids.mutable_data<std::int32_t>()[i] = 7 * i + 3;
  write_npy(dir / "ids.npy", ids);
  const auto logits = [&](const std::string& model, std::vector<std::string> rounding) {
    std::vector<std::string> arguments = {
        "eval", "logits", model, "--ids", dir / "ids.npy", "--out", dir / "logits.npy", "--exact"};
    std::ranges::move(rounding, back_inserter(arguments));
    nibble_json(arguments);
    const Tensor out = read_npy(dir / "logits.npy");
    return std::vector<std::byte>(out.bytes().begin(), out.bytes().end());
  };
  nibble_json(
      {"quantize", tiny(), dir / "q", "--recipe", "rtn", "--format", "w4a16_g128", "--no-verify"});
  const auto stored = logits(dir / "q", {});
  EXPECT_EQ(logits(tiny(), {"--weights", "int4_g128_asym_sbf16"}), stored);
  EXPECT_NE(logits(tiny(), {}), stored);
  EXPECT_NE(logits(dir / "q", {"--activations", "int8_g256"}), stored);
}

TEST(CliTest, ConvertsExactlyOrRefusesOrMeasures) {
  const test::TempDir dir;
  const std::string quantized = dir / "q", gptq = dir / "gptq";
  nibble_json({"quantize", tiny(), quantized, "--recipe", "rtn", "--no-verify"});
  const Json exact = nibble_json({"convert", quantized, gptq, "--to", "gptq_v2"});
  EXPECT_EQ(exact["exact"], true);
  EXPECT_EQ(exact["from"], "compressed-tensors");
  EXPECT_EQ(exact["modules"], 6 * 7);
  const std::vector<std::string> run = {"run", "-p", "the", "-n", "8", "--exact"};
  const auto generated = [&](const std::string& model) {
    std::vector<std::string> arguments = run;
    arguments.insert(arguments.begin() + 1, model);
    return nibble_json(arguments)["full_ids"];
  };
  EXPECT_EQ(generated(gptq), generated(quantized));

  const std::vector<std::string> to_bnb = {"convert", gptq, dir / "bnb", "--to", "bnb"};
  const Outcome refused = invoke(to_bnb);
  EXPECT_EQ(refused.status, 4);
  EXPECT_THAT(refused.err, testing::HasSubstr("model.layers.0.mlp.down_proj"));
  EXPECT_FALSE(std::filesystem::exists(dir / "bnb"));
  std::vector<std::string> allowed = to_bnb;
  allowed.insert(allowed.end(), {"--requantize", "--verify-text", short_text(dir)});
  const Json rounded = nibble_json(allowed);
  EXPECT_EQ(rounded["exact"], false);
  EXPECT_EQ(rounded["requantized"].size(), 6u * 7u);
  EXPECT_GT(rounded["mean_kl"].get<double>(), 0);
}

TEST(CliTest, ConvertsToGgufAndBack) {
  const test::TempDir dir;
  const std::string plain = dir / "plain.gguf", q4 = dir / "q4.gguf";
  EXPECT_EQ(nibble_json({"convert", tiny(), plain, "--to", "gguf"})["exact"], true);
  const auto generated = [](const std::string& model) {
    return nibble_json({"run", model, "-p", "the", "-n", "8", "--exact"})["full_ids"];
  };
  EXPECT_EQ(generated(plain), generated(tiny()));
  const Json rounded = nibble_json({"convert", tiny(), q4, "--to", "gguf", "--preset", "q4_k_m",
                                    "--verify-text", short_text(dir, 2000)});
  EXPECT_EQ(rounded["exact"], false);
  EXPECT_GT(rounded["mean_kl"].get<double>(), 0);
  EXPECT_LT(rounded["mean_kl"].get<double>(), 0.1);
  const std::string matrix = dir / "x.imatrix";
  EXPECT_EQ(nibble_json({"imatrix", tiny(), matrix, "--tokens", "1024"})["entries"], 6 * 7);
  const auto kl_of_q2 = [&](std::vector<std::string> more) {
    const std::string file = dir / ("q2" + std::to_string(more.size()) + ".gguf");
    more.insert(more.begin(), {"convert", tiny(), file, "--to", "gguf", "--preset", "Q2_K",
                               "--verify-text", short_text(dir, 2000)});
    return nibble_json(more)["mean_kl"].get<double>();
  };
  EXPECT_LT(kl_of_q2({"--imatrix", matrix}), kl_of_q2({}));

  const std::string gptq = dir / "gptq", q4_0 = dir / "q4_0.gguf";
  nibble_json(
      {"quantize", tiny(), gptq, "--recipe", "rtn", "--format", "w4a16_g128_sym", "--no-verify"});
  EXPECT_EQ(nibble_json({"convert", gptq, q4_0, "--to", "gguf"})["exact"], true);
  EXPECT_EQ(generated(q4_0), generated(gptq));
}

TEST(CliTest, QuantizesToGgufByItsOwnStatistics) {
  const test::TempDir dir;
  const std::string text = short_text(dir, 2000), weighed = dir / "weighed.gguf";
  const Json report =
      nibble_json({"quantize", tiny(), weighed, "--preset", "Q2_K", "--calib-tokens", "2048",
                   "--calib-context", "256", "--verify-text", text});
  EXPECT_EQ(report["weighted"], 6 * 7);
  EXPECT_EQ(report["calibration_tokens"], 2048);
  const Json plain = nibble_json({"convert", tiny(), dir / "plain.gguf", "--to", "gguf", "--preset",
                                  "Q2_K", "--verify-text", text});
  EXPECT_LT(report["verify"]["mean_kl"].get<double>(), plain["mean_kl"].get<double>());

  const Outcome missed =
      invoke({"quantize", tiny(), dir / "q4.gguf", "--format", "q4_0", "--calib-tokens", "512",
              "--verify-text", text, "--fail-above-kl", "0"});
  EXPECT_EQ(missed.status, 6);
  EXPECT_EQ(nibble_json({"inspect", dir / "q4.gguf"})["convention"], "gguf");  // complete
  EXPECT_EQ(invoke({"quantize", tiny(), weighed, "--no-verify"}).status, 2);   // exists
  EXPECT_EQ(invoke({"quantize", tiny(), dir / "a.gguf", "--recipe", "rtn"}).status, 2);
  EXPECT_EQ(invoke({"quantize", tiny(), dir / "a.gguf", "--format", "w4a16_g128"}).status, 2);
  EXPECT_EQ(invoke({"quantize", tiny(), dir / "a", "--preset", "Q4_K_M"}).status, 2);
}

TEST(CliTest, TextThatIsNotUtf8IsAUsageError) {
  const test::TempDir dir;
  std::ofstream(dir / "bad.txt") << "fine until \xff here";
  EXPECT_EQ(invoke({"eval", "ppl", tiny(), "--text", dir / "bad.txt"}).status, 2);
  EXPECT_EQ(invoke({"eval", "ppl", tiny(), "--text", dir / "none.txt"}).status, 3);
}

TEST(CliTest, StudyBitsOfAModelWritesTableAndPage) {
  const test::TempDir dir;
  const Json study =
      nibble_json({"study", "bits", tiny(), "--text", short_text(dir, 2000), "--formats",
                   "w4a16_g128", "--calibrator", "percentile", "--per-channel", "--csv",
                   dir / "bits.csv", "--html", dir / "bits.html"});
  EXPECT_EQ(study["findings"].size(), 3u);
  std::map<std::string, int> kinds, ranges;
  for (const Json& row : study["rows"]) {
    ++kinds[row["kind"]];
    ++ranges[row["range"]];
  }
  EXPECT_THAT(kinds, testing::SizeIs(3));  // distributions, weights, activations
  for (const char* range :
       {"best", "minmax", "lloyd-max", "stored", "percentile", "percentile/channel"}) {
    EXPECT_GT(ranges[range], 0) << range;
  }
  const std::string csv = read_text_file(dir / "bits.csv");
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'),
            static_cast<std::ptrdiff_t>(study["rows"].size() + 1));
  EXPECT_THAT(read_text_file(dir / "bits.html"), testing::HasSubstr("<svg"));
}

TEST(CliTest, StudyBitsRefusesWhatItCannotMean) {
  EXPECT_EQ(invoke({"study", "bits", "--text", "x.txt"}).status, 2);
  EXPECT_EQ(invoke({"study", "bits", "--calibrator", "mse"}).status, 2);
  EXPECT_EQ(invoke({"study", "bits", tiny(), "--per-channel"}).status, 2);
  EXPECT_EQ(invoke({"study", "bits", tiny(), "--calibrator", "entropie"}).status, 2);
  EXPECT_EQ(invoke({"study"}).status, 2);
}

}  // namespace
}  // namespace nibble
