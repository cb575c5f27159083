#include "server/tool_calls.h"

#include "support/test_data.h"

namespace nibble {
namespace {

struct Outcome {
  std::string text;
  std::vector<std::string> calls;  // "name arguments"
};

// The answer in pieces of `size` bytes; whatever the size, the outcome must be the same.
Outcome parse(const std::string& answer, std::size_t size) {
  server::ToolCallParser parser;
  Outcome outcome;
  const auto take = [&](const server::ToolCallParser::Found& found) {
    outcome.text += found.text;
    for (const auto& call : found.calls) outcome.calls.push_back(call.name + " " + call.arguments);
  };
  for (std::size_t at = 0; at < answer.size(); at += size) {
    take(parser.push(std::string_view(answer).substr(at, size)));
  }
  take(parser.finish());
  return outcome;
}

void expect(const std::string& answer, const std::string& text,
            const std::vector<std::string>& calls) {
  for (const std::size_t size : {1u, 2u, 7u, 1000u}) {
    const Outcome outcome = parse(answer, size);
    EXPECT_EQ(outcome.text, text) << answer << " by " << size;
    EXPECT_EQ(outcome.calls, calls) << answer << " by " << size;
  }
}

TEST(ToolCalls, HermesAndQwenForm) {
  expect(
      "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\", \"a\": "
      "1}}\n</tool_call>",
      "", {R"(weather {"city":"Rome","a":1})"});
  expect(
      "Let me see.<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"
      "<tool_call>{\"name\": \"g\", \"arguments\": \"{}\"}</tool_call>",
      "Let me see.", {"f {}", "g {}"});
}

TEST(ToolCalls, Llama3Form) {
  expect(R"({"name": "weather", "parameters": {"city": "Rome"}})", "",
         {R"(weather {"city":"Rome"})"});
  expect(
      R"(<|python_tag|>{"name": "f", "parameters": {"s": "a}\"{"}}; {"name": "g", "arguments": {}})",
      "", {R"(f {"s":"a}\"{"})", "g {}"});
}

TEST(ToolCalls, WhatIsNoCallStaysText) {
  for (const char* text :
       {"", "plain text", "  ", "a < b <tool", "<tool_call>",
        "<tool_call>{\"name\": 3}</tool_call> x", "<tool_call>{\"name\": \"f\"", "{\"answer\": 42}",
        "{\"name\": \"f\"} and more", "{\"name\": \"f\", \"parameters\": 3}", "<|python",
        "<|python_tag|>print(1)", "{", "<tool_call>not json</tool_call>"}) {
    expect(text, text, {});
  }
}

TEST(ToolCalls, TextIsNotHeldBackForLong) {
  server::ToolCallParser parser;
  EXPECT_EQ(parser.push("Hello").text, "Hello");
  EXPECT_EQ(parser.push(" <").text, " ");
  EXPECT_EQ(parser.push("b>").text, "<b>");
}

}  // namespace
}  // namespace nibble
