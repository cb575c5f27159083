#include "quantize/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "support/test_data.h"

namespace nibble {
namespace {

Recipe parse(const std::string& text) { return parse_recipe(text, "test"); }

TEST(BundledRecipes, HaveTheNamesThatUsersKnow) {
  std::vector<std::string> names;
  for (const Recipe& recipe : bundled_recipes()) {
    names.push_back(recipe.name);
    EXPECT_FALSE(recipe.description.empty()) << recipe.name;
  }
  EXPECT_THAT(names, testing::IsSupersetOf({"rtn", "clip", "smoothquant+", "smoothquant+clip",
                                            "seqmse", "cle", "llm_fp4_4_4_16", "llm_fp4_4_4_8",
                                            "llm_fp4_4_4_4", "llm.int8", "nf4", "bnb_fp4"}));
  EXPECT_EQ(load_recipe("sq+").name, "smoothquant+");
  EXPECT_EQ(load_recipe("llm-fp4").name, "llm_fp4_4_4_4");
}

TEST(BundledRecipes, SayWhatTheyNeed) {
  for (const char* free : {"rtn", "llm.int8", "nf4", "bnb_fp4"}) {
    EXPECT_FALSE(load_recipe(free).needs_statistics()) << free;
    EXPECT_FALSE(load_recipe(free).needs_search()) << free;
  }
  EXPECT_TRUE(load_recipe("clip").needs_statistics());
  EXPECT_FALSE(load_recipe("clip").needs_search());
  EXPECT_TRUE(load_recipe("smoothquant+").needs_search());
}

TEST(LoadRecipe, ReadsFiles) {
  test::TempDir dir;
  write_file_atomic(dir / "mine.json", R"({"format": "w8a16", "steps": [{"algorithm": "rtn"}]})");
  const Recipe recipe = load_recipe((dir / "mine.json").string());
  EXPECT_EQ(recipe.format, "w8a16");
  EXPECT_ERROR(load_recipe((dir / "no.json").string()), ErrorKind::kCorrupt, "no.json");
}

TEST(LoadRecipe, NamesTheNearest) {
  EXPECT_ERROR(load_recipe("smoothqant+"), ErrorKind::kUsage, "did you mean smoothquant+");
}

TEST(ParseRecipe, FillsInDefaults) {
  const Recipe recipe = parse(R"({
    "calibration": {"tokens": 100, "context": 50},
    "steps": [{"algorithm": "smoothquant_plus", "per_site": true, "step": 0.1},
              {"algorithm": "clip_search"}]})");
  EXPECT_EQ(recipe.calibration.tokens, 100);
  EXPECT_EQ(recipe.calibration.search_tokens, CalibrationOptions{}.search_tokens);
  EXPECT_TRUE(flag(recipe.steps[0].parameters, "per_site"));
  EXPECT_EQ(number(recipe.steps[0].parameters, "step"), 0.1);
  EXPECT_EQ(text(recipe.steps[0].parameters, "activation"), "max");
  EXPECT_EQ(recipe.solver().algorithm->name, "clip_search");
}

TEST(ParseRecipe, RefusesWhatCannotBeMeant) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"([])", "must be an object"},
      {R"({"stepps": []})", "did you mean steps"},
      {R"({"steps": {}})", "a list"},
      {R"({"steps": []})", "no steps"},
      {R"({})", "needs 'steps'"},
      {R"({"steps": [{"algorithm": "clip_serch"}]})", "did you mean clip_search"},
      {R"({"steps": [{"algorithm": 4}]})", "step 1"},
      {R"({"steps": ["rtn"]})", "step 1"},
      {R"({"steps": [{"algorithm": "rtn", "steps": 4}]})", "unknown key 'steps'"},
      {R"({"steps": [{"algorithm": "clip_search", "stepps": 4}]})", "did you mean steps"},
      {R"({"steps": [{"algorithm": "clip_search", "steps": 0}]})", "an integer from 1"},
      {R"({"steps": [{"algorithm": "clip_search", "steps": 2.5}]})", "an integer"},
      {R"({"steps": [{"algorithm": "clip_search", "steps": "many"}]})", "an integer"},
      {R"({"steps": [{"algorithm": "clip_search", "independent": 1}]})", "true or false"},
      {R"({"steps": [{"algorithm": "smoothquant_plus", "sites": "some"}, {"algorithm": "rtn"}]})",
       "one of all, norms, any"},
      {R"({"steps": [{"algorithm": "smoothquant_plus"}]})", "must be a solver"},
      {R"({"steps": [{"algorithm": "rtn"}, {"algorithm": "rtn"}]})", "must be the last"},
      {R"({"steps": [{"algorithm": "bias_correction"}]})", "must be a solver"},
      {R"({"steps": [{"algorithm": "bias_correction"}, {"algorithm": "rtn"}]})",
       "must come after it"},
      {R"({"steps": [{"algorithm": "smoothquant_plus"}, {"algorithm": "smoothquant_plus"},
                     {"algorithm": "rtn"}]})",
       "2 searches"},
      {R"({"format": "w9", "steps": [{"algorithm": "rtn"}]})", "unknown"},
      {R"({"format": 4, "steps": [{"algorithm": "rtn"}]})", "must be text"},
      {R"({"aliases": "x", "steps": [{"algorithm": "rtn"}]})", "list"},
      {R"({"calibration": {"tokens": -1}, "steps": [{"algorithm": "rtn"}]})", "'tokens'"},
      {R"({"calibration": {"tokens": 1e99}, "steps": [{"algorithm": "rtn"}]})", "'tokens'"},
      {R"({"calibration": {"tokens": 18446744073709551615}, "steps": [{"algorithm": "rtn"}]})",
       "'tokens'"},
      {R"({"calibration": {"token": 5}, "steps": [{"algorithm": "rtn"}]})", "did you mean tokens"},
      {R"({"calibration": {"context": 1}, "steps": [{"algorithm": "rtn"}]})", "'context'"},
  };
  for (const auto& [text, message] : cases) {
    SCOPED_TRACE(text);
    EXPECT_ERROR(parse(text), ErrorKind::kUsage, message);
  }
}

TEST(ParseRecipe, SaysWhatIsNoJson) {
  EXPECT_ERROR(parse("{"), ErrorKind::kCorrupt, "test");
  EXPECT_ERROR(parse(R"({"steps": [], "steps": []})"), ErrorKind::kCorrupt, "test");
}

TEST(ToString, TellsRecipesApart) {
  const std::string plain = to_string(parse(R"({"steps": [{"algorithm": "clip_search"}]})"));
  const std::string same =
      to_string(parse(R"({"steps": [{"algorithm": "clip_search", "steps": 20}]})"));
  const std::string other =
      to_string(parse(R"({"steps": [{"algorithm": "clip_search", "steps": 21}]})"));
  EXPECT_EQ(plain, same);
  EXPECT_NE(plain, other);
}

}  // namespace
}  // namespace nibble
