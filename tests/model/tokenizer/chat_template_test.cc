// Chat templates against transformers' renderings (tests/golden/chat_templates/make.py).
#include "model/tokenizer/chat_template.h"

#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using nlohmann::ordered_json;

TEST(ChatTemplate, RendersAsTheReference) {
  const std::string golden =
      read_text_file(test::source_dir() / "tests/golden/chat_templates/cases.json");
  int rendered = 0;
  for (const ordered_json& row : ordered_json::parse(golden)) {
    const auto text = row.at("template").get<std::string>();
    if (row.contains("error")) {
      EXPECT_THROW(apply_chat_template(text, row.at("context")), Error) << text;
      continue;
    }
    try {
      EXPECT_EQ(apply_chat_template(text, row.at("context")), row.at("text").get<std::string>())
          << text;
      ++rendered;
    } catch (const Error& error) {
      ADD_FAILURE() << error.what() << "\n" << text;
    }
  }
  EXPECT_GT(rendered, 35);
}

TEST(ChatTemplate, ErrorsHaveTheRightKindAndLine) {
  const Json none = Json::object();
  const auto render = [&](const std::string& text) { return apply_chat_template(text, none); };
  EXPECT_ERROR(render("a\n\n{{ raise_exception('no') }}"), ErrorKind::kUsage, "line 3: no");
  EXPECT_ERROR(render("\n{{ x.y }}"), ErrorKind::kCorrupt, "line 2: 'x' is undefined");
  EXPECT_ERROR(render("{% include 'x' %}"), ErrorKind::kUnsupported, "line 1: statement 'include'");
  EXPECT_ERROR(render("\n{{ 1 | magic }}"), ErrorKind::kUnsupported, "line 2: filter 'magic'");
  EXPECT_ERROR(render("{% if true %}"), ErrorKind::kCorrupt, "endif");
  EXPECT_ERROR(render("{{ 'a }}"), ErrorKind::kCorrupt, "string without end");
  EXPECT_ERROR(render("\xff"), ErrorKind::kCorrupt, "UTF-8");
  EXPECT_ERROR(apply_chat_template("x", Json(3)), ErrorKind::kUsage, "object");
}

TEST(ChatTemplate, RunawayTemplatesEnd) {
  const Json none = Json::object();
  for (const std::string& text : {
           std::string("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
           std::string("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
                       "{% endfor %}"),
           std::string("{{ range(10000000000) }}"),
           std::string("{{ 'x' * 99999999999 }}"),
           std::string("{% set n = namespace(x='ab') %}{% for i in range(60) %}"
                       "{% set n.x = n.x + n.x %}{% endfor %}"),
           std::string("{% set n = namespace() %}{% set n.x = n %}{{ n }}"),
           "{{ " + std::string(100000, '(') + " }}",
           "{{ " + std::string(100000, '-') + "1 }}",
           "{{ x" + std::string(100000, '[') + " }}",
       }) {
    EXPECT_ERROR(apply_chat_template(text, none), ErrorKind::kCorrupt, "chat template");
  }
}

TEST(ChatTemplate, IsFoundWhereCheckpointsKeepIt) {
  const test::TempDir dir;
  EXPECT_EQ(load_chat_template(dir.path()), std::nullopt);
  std::ofstream(dir / "tokenizer_config.json") << R"({"chat_template": "A"})";
  EXPECT_EQ(load_chat_template(dir.path()), "A");
  std::ofstream(dir / "tokenizer_config.json")
      << R"({"chat_template": [{"name": "tool_use", "template": "T"},
                               {"name": "default", "template": "D"}]})";
  EXPECT_EQ(load_chat_template(dir.path()), "D");
  std::ofstream(dir / "chat_template.json") << R"({"chat_template": "J"})";
  EXPECT_EQ(load_chat_template(dir.path()), "J");
  std::ofstream(dir / "chat_template.jinja") << "X";
  EXPECT_EQ(load_chat_template(dir.path()), "X");
  EXPECT_EQ(load_chat_template(test::tiny_novel()), std::nullopt);
}

TEST(ChatTemplate, FallbackNamesTheRoles) {
  const Json context = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}},
                        {"add_generation_prompt", true},
                        {"bos_token", "<s>"}};
  EXPECT_EQ(apply_chat_template(fallback_chat_template(), context), "<s>user: Hi\n\nassistant:");
}

}  // namespace
}  // namespace nibble
