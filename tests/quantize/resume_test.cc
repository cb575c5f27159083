// A run that is killed at any point continues where it was, and gives the same bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "quantize/small_model.h"
#include "support/exact_backend.h"

namespace nibble {
namespace {

using test::kSmallSearch;

// Both streams of the text, and passes over it for every site.
constexpr const char* kSmallGptq = R"({"steps": [
    {"algorithm": "gptq", "asymmetry": 1, "true_sequential": true}]})";
// The formats that a solver chose are known again after a kill.
constexpr const char* kSmallFloats = R"({"format": "w=fp4_e3m0_channel,a=fp4_e2m1_tensor_static",
    "steps": [{"algorithm": "llm_fp4", "rounds": 1, "steps": 8, "shortlist": 2}]})";
constexpr const char* kSmallBlocks = R"({"steps": [
    {"algorithm": "autoround", "iterations": 2, "batch": 2}]})";
using test::small_options;

// Steps saved by a run that is not disturbed.
std::vector<std::string> run_recording(QuantizeOptions options) {
  std::vector<std::string> saved;
  options.on_saved = [&](const std::string& step) { saved.push_back(step); };
  const auto backend = test::exact_backend(1);
  quantize(options, *backend);
  return saved;
}

// Runs in a child that kills itself after `steps` steps were saved. False when it ended before.
bool run_and_kill(QuantizeOptions options, std::size_t steps) {
  const pid_t child = fork();
  if (child == 0) {
    std::size_t saved = 0;
    options.on_saved = [&](const std::string&) {
      if (++saved == steps) kill(getpid(), SIGKILL);
    };
    try {
      const auto backend = test::exact_backend(1);
      quantize(options, *backend);
    } catch (...) {
      _exit(2);
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << status;
  return WIFSIGNALED(status);
}

class ResumeTest : public testing::Test {
 protected:
  void SetUp() override { test::write_small_model(dir_ / "model", 2); }

  QuantizeOptions options(const std::string& output, const std::string& recipe) const {
    return small_options(dir_ / "model", dir_ / output, recipe);
  }

  test::TempDir dir_;
};

TEST_F(ResumeTest, KillAfterEveryStepGivesTheSameBytes) {
  for (const std::string& recipe : {std::string("rtn"), std::string(kSmallSearch)}) {
    const std::vector<std::string> steps = run_recording(options("whole", recipe));
    ASSERT_GE(steps.size(), 2u);
    for (std::size_t n = 1; n <= steps.size(); ++n) {
      SCOPED_TRACE(recipe + " killed after " + steps[n - 1]);
      QuantizeOptions again = options("resumed", recipe);
      ASSERT_TRUE(run_and_kill(again, n));
      EXPECT_FALSE(std::filesystem::exists(again.output));
      again.resume = true;
      // At most the layer that was being saved is done again.
      const std::vector<std::string> rest = run_recording(again);
      EXPECT_LE(rest.size(), steps.size() - n + 1);
      ASSERT_LE(rest.size(), steps.size());
      EXPECT_THAT(rest, testing::ElementsAreArray(
                            steps.end() - static_cast<std::ptrdiff_t>(rest.size()), steps.end()));
      test::expect_same_directories(dir_ / "whole", dir_ / "resumed");
      EXPECT_FALSE(std::filesystem::exists(again.output.string() + ".partial"));
      std::filesystem::remove_all(again.output);
    }
    std::filesystem::remove_all(dir_ / "whole");
  }
}

// A run does at most one step again, so one that is killed after two of them still comes to an end.
TEST_F(ResumeTest, RepeatedKillsAddUp) {
  for (const std::string recipe : {kSmallSearch, kSmallGptq, kSmallFloats, kSmallBlocks}) {
    SCOPED_TRACE(recipe);
    run_recording(options("whole", recipe));
    QuantizeOptions again = options("resumed", recipe);
    again.resume = true;
    int kills = 0;
    while (run_and_kill(again, 2)) ++kills;
    EXPECT_GE(kills, 2);
    test::expect_same_directories(dir_ / "whole", dir_ / "resumed");
    std::filesystem::remove_all(dir_ / "whole");
    std::filesystem::remove_all(dir_ / "resumed");
  }
}

TEST_F(ResumeTest, AnInterruptedRunIsNotOverwrittenUnasked) {
  ASSERT_TRUE(run_and_kill(options("out", "clip"), 2));
  const auto backend = test::exact_backend(1);
  EXPECT_ERROR(quantize(options("out", "clip"), *backend), ErrorKind::kUsage, "--resume");
}

TEST_F(ResumeTest, AnotherRecipeTextOrOptionIsNotResumed) {
  ASSERT_TRUE(run_and_kill(options("out", "clip"), 2));
  const auto backend = test::exact_backend(1);
  QuantizeOptions other_recipe = options("out", "rtn");
  QuantizeOptions other_format = options("out", "clip");
  other_format.format = parse_model_format("w3a16_g128");
  QuantizeOptions other_text = options("out", "clip");
  other_text.calibration.tokens = 128;
  QuantizeOptions other_override = options("out", "clip");
  other_override.overrides = {{"down_proj$", parse_weight_format("int8")}};
  for (QuantizeOptions* other : {&other_recipe, &other_format, &other_text, &other_override}) {
    other->resume = true;
    EXPECT_ERROR(quantize(*other, *backend), ErrorKind::kUsage, "another model, recipe or option");
  }
}

TEST_F(ResumeTest, ResumingNothingBeginsAnew) {
  QuantizeOptions fresh = options("out", "rtn");
  fresh.resume = true;
  EXPECT_FALSE(run_recording(fresh).empty());
  EXPECT_TRUE(std::filesystem::exists(fresh.output));
}

TEST_F(ResumeTest, ThreadsDoNotChangeTheBytes) {
  for (const std::string recipe : {kSmallSearch, kSmallGptq, "awq", kSmallFloats, kSmallBlocks}) {
    SCOPED_TRACE(recipe);
    for (const int count : {1, 3}) {
      const auto backend = test::exact_backend(count);
      quantize(options(fmt::format("threads{}", count), recipe), *backend);
    }
    test::expect_same_directories(dir_ / "threads1", dir_ / "threads3");
    std::filesystem::remove_all(dir_ / "threads1");
    std::filesystem::remove_all(dir_ / "threads3");
  }
}

}  // namespace
}  // namespace nibble
