// Requests that cannot be meant: each gets a 400 that names the member.
#include "base/error.h"
#include "server/api_error.h"
#include "server/chat_request.h"
#include "server/completion_request.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using server::ApiError;

server::RequestDefaults defaults() {
  server::RequestDefaults defaults;
  defaults.vocab = 100;
  return defaults;
}

struct BadRequest {
  const char* member;
  const char* body;
};

template <class Parse>
void expect_refusals(const std::vector<BadRequest>& cases, const Parse& parse) {
  for (const BadRequest& bad : cases) {
    try {
      parse(bad.body);
      ADD_FAILURE() << "accepted: " << bad.body;
    } catch (const ApiError& error) {
      EXPECT_EQ(error.status(), 400) << bad.body;
      EXPECT_EQ(error.param(), bad.member) << bad.body << ": " << error.what();
    }
  }
}

TEST(CompletionRequest, RefusesWhatCannotBeMeant) {
  const std::vector<BadRequest> cases = {
      {"", R"([1, 2])"},
      {"", R"("text")"},
      {"prompt", R"({})"},
      {"prompt", R"({"prompt": 3})"},
      {"prompt", R"({"prompt": []})"},
      {"prompt", R"({"prompt": [[]]})"},
      {"prompt", R"({"prompt": ["a", 3]})"},
      {"prompt", R"({"prompt": [100]})"},
      {"prompt", R"({"prompt": [-1]})"},
      {"prompt", R"({"prompt": [1.5]})"},
      {"prompt", R"({"prompt": [18446744073709551615]})"},
      {"max_tokens", R"({"prompt": "x", "max_tokens": 0})"},
      {"max_tokens", R"({"prompt": "x", "max_tokens": -1})"},
      {"max_tokens", R"({"prompt": "x", "max_tokens": 1e300})"},
      {"max_tokens", R"({"prompt": "x", "max_tokens": "many"})"},
      {"temperature", R"({"prompt": "x", "temperature": -0.1})"},
      {"temperature", R"({"prompt": "x", "temperature": true})"},
      {"top_p", R"({"prompt": "x", "top_p": 0})"},
      {"top_p", R"({"prompt": "x", "top_p": 1.01})"},
      {"top_k", R"({"prompt": "x", "top_k": -2})"},
      {"min_p", R"({"prompt": "x", "min_p": 2})"},
      {"repetition_penalty", R"({"prompt": "x", "repetition_penalty": 0})"},
      {"presence_penalty", R"({"prompt": "x", "presence_penalty": 2.5})"},
      {"frequency_penalty", R"({"prompt": "x", "frequency_penalty": -3})"},
      {"logit_bias", R"({"prompt": "x", "logit_bias": {"a": 1}})"},
      {"logit_bias", R"({"prompt": "x", "logit_bias": {"100": 1}})"},
      {"logit_bias", R"({"prompt": "x", "logit_bias": {"1": 101}})"},
      {"logit_bias", R"({"prompt": "x", "logit_bias": {"1": 1, "01": 2}})"},
      {"logit_bias", R"({"prompt": "x", "logit_bias": [1]})"},
      {"n", R"({"prompt": "x", "n": 0})"},
      {"n", R"({"prompt": "x", "n": 129})"},
      {"best_of", R"({"prompt": "x", "n": 3, "best_of": 2})"},
      {"best_of", R"({"prompt": "x", "best_of": 2, "stream": true})"},
      {"logprobs", R"({"prompt": "x", "logprobs": 21})"},
      {"logprobs", R"({"prompt": "x", "logprobs": true})"},
      {"stop", R"({"prompt": "x", "stop": [""]})"},
      {"stop", R"({"prompt": "x", "stop": 4})"},
      {"stop_token_ids", R"({"prompt": "x", "stop_token_ids": [100]})"},
      {"stream", R"({"prompt": "x", "stream": "yes"})"},
      {"stream_options", R"({"prompt": "x", "stream_options": {}})"},
      {"suffix", R"({"prompt": "x", "suffix": "y"})"},
      {"response_format", R"({"prompt": "x", "response_format": {"type": "yaml"}})"},
      {"response_format", R"({"prompt": "x", "response_format": {"type": "json_schema",
                              "json_schema": {"name": "n", "schema": {"not": {}}}}})"},
      {"guided_regex", R"({"prompt": "x", "guided_regex": "(a"})"},
      {"guided_grammar", R"({"prompt": "x", "guided_grammar": "root ::= root"})"},
      {"guided_choice", R"({"prompt": "x", "guided_choice": []})"},
      {"grammar", R"({"prompt": "x", "guided_regex": "a", "grammar": "root ::= \"a\""})"},
      {"structured_outputs", R"({"prompt": "x", "structured_outputs": {"lark": "x"}})"},
      {"typical_p", R"({"prompt": "x", "typical_p": 0})"},
      {"response_format", R"({"prompt": "x", "response_format": "json"})"},
      {"guided_json", R"({"prompt": "x", "guided_json": 3})"},
      {"use_beam_search", R"({"prompt": "x", "use_beam_search": true})"},
      {"model", R"({"prompt": "x", "model": 3})"},
      {"echo", R"({"prompt": "x", "echo": 1})"},
  };
  expect_refusals(cases, [](const char* body) { server::parse_completion(body, defaults()); });
}

TEST(CompletionRequest, RefusesTooMuch) {
  const auto parse = [](const Json& json) { server::parse_completion(json.dump(), defaults()); };
  EXPECT_THROW(parse({{"prompt", "x"}, {"stop", std::vector<std::string>(65, "s")}}), ApiError);
  EXPECT_NO_THROW(parse({{"prompt", "x"}, {"stop", std::vector<std::string>(64, "s")}}));
  EXPECT_THROW(parse({{"prompt", "x"}, {"stop", std::string(1025, 's')}}), ApiError);
  EXPECT_THROW(parse({{"prompt", "x"}, {"stop_token_ids", std::vector<int>(1025, 1)}}), ApiError);
  EXPECT_THROW(parse({{"prompt", std::vector<std::string>(1025, "x")}}), ApiError);
  EXPECT_THROW(parse({{"prompt", std::vector<std::string>(1000, "x")}, {"n", 2}}), ApiError);
}

TEST(CompletionRequest, IsDamagedJson) {
  for (const char* body : {"", "{", "{\"prompt\": \"x\"", "{\"prompt\": \"\xff\"}",
                           "{\"prompt\": \"x\", \"prompt\": \"y\"}", "nul"}) {
    EXPECT_ERROR(server::parse_completion(body, defaults()), ErrorKind::kCorrupt, "body");
  }
  EXPECT_ERROR(server::parse_completion(std::string(100'000, '['), defaults()), ErrorKind::kCorrupt,
               "nested");
}

TEST(CompletionRequest, TakesWholeFloatsAndNulls) {
  const auto parsed = server::parse_completion(
      R"({"prompt": "x", "max_tokens": 5.0, "stop": null, "n": null,
          "response_format": {"type": "text"}, "guided_json": null, "use_beam_search": false})",
      defaults());
  EXPECT_EQ(parsed.request.common.max_tokens, 5);
}

TEST(CompletionRequest, SaysWhatItIgnored) {
  const auto parsed = server::parse_completion(
      R"({"prompt": "x", "user": "u", "flavour": 1, "empty": null})", defaults());
  EXPECT_THAT(parsed.ignored, testing::ElementsAre("flavour"));
}

TEST(ChatRequest, RefusesWhatCannotBeMeant) {
  const std::vector<BadRequest> cases = {
      {"messages", R"({})"},
      {"messages", R"({"messages": []})"},
      {"messages", R"({"messages": "hi"})"},
      {"messages[0]", R"({"messages": ["hi"]})"},
      {"messages[0]", R"({"messages": [{"content": "hi"}]})"},
      {"messages[0]", R"({"messages": [{"role": "user"}]})"},
      {"messages[0]", R"({"messages": [{"role": "user", "content": 3}]})"},
      {"messages[0]", R"({"messages": [{"role": "user", "content": [3]}]})"},
      {"messages[0]",
       R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]})"},
      {"messages[0]", R"({"messages": [{"role": "user", "content": [{"type": "text"}]}]})"},
      {"messages[1]",
       R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": 3}]})"},
      {"tools", R"({"messages": [{"role": "user", "content": "x"}], "tools": 3})"},
      {"tools", R"({"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "f"}]})"},
      {"tool_choice",
       R"({"messages": [{"role": "user", "content": "x"}], "tool_choice": "required"})"},
      {"top_logprobs", R"({"messages": [{"role": "user", "content": "x"}], "top_logprobs": 3})"},
      {"max_tokens", R"({"messages": [{"role": "user", "content": "x"}], "max_tokens": 0})"},
      {"max_completion_tokens",
       R"({"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 0})"},
      {"modalities",
       R"({"messages": [{"role": "user", "content": "x"}], "modalities": ["audio"]})"},
      {"functions", R"({"messages": [{"role": "user", "content": "x"}], "functions": [{}]})"},
      {"response_format",
       R"({"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema"}})"},
      {"chat_template_kwargs",
       R"({"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": 3})"},
  };
  expect_refusals(cases, [](const char* body) { server::parse_chat(body, defaults()); });
}

TEST(ChatRequest, JoinsPartsAndOpensArguments) {
  const auto parsed = server::parse_chat(
      R"({"messages": [
           {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
           {"role": "assistant", "content": null, "tool_calls": [
             {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"z\": 1, \"a\": 2}"}}]},
           {"role": "tool", "tool_call_id": "1", "content": "3"}],
          "tools": [{"type": "function", "function": {"name": "f", "description": "d"}}],
          "chat_template_kwargs": {"enable_thinking": false}})",
      defaults());
  const auto& conversation = parsed.request.conversation;
  EXPECT_EQ(conversation["messages"][0]["content"], "ab");
  EXPECT_EQ(conversation["messages"][1]["content"], "");
  EXPECT_EQ(conversation["messages"][1]["tool_calls"][0]["function"]["arguments"].dump(),
            R"({"z":1,"a":2})")
      << "in their order";
  EXPECT_EQ(conversation["tools"][0]["function"]["name"], "f");
  EXPECT_EQ(conversation["enable_thinking"], false);
  EXPECT_EQ(conversation["add_generation_prompt"], true);
  EXPECT_TRUE(parsed.request.tools);
}

TEST(ChatRequest, FormsAreTakenInTheirOrder) {
  const auto parsed = server::parse_chat(
      R"({"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema",
          "json_schema": {"schema": {"properties": {"z": {"type": "null"}, "a": true}}}}})",
      defaults());
  ASSERT_TRUE(parsed.request.common.engine.structure.has_value());
  EXPECT_EQ(parsed.request.common.engine.structure->text,
            R"(json {"properties":{"z":{"type":"null"},"a":true}})");
  for (const bool tagged : {true, false}) {
    server::RequestDefaults form = defaults();
    form.tagged_calls = tagged;
    const auto forced = server::parse_chat(
        R"({"messages": [{"role": "user", "content": "x"}], "tool_choice": "required",
            "tools": [{"type": "function", "function": {"name": "f\"g"}}]})",
        form);
    const std::string& grammar = forced.request.common.engine.structure->text;
    EXPECT_TRUE(forced.request.tools);
    EXPECT_EQ(grammar.find("<tool_call>") != std::string::npos, tagged) << grammar;
  }
}

TEST(ChatRequest, ToolChoiceNoneHidesTheTools) {
  const auto parsed = server::parse_chat(
      R"({"messages": [{"role": "user", "content": "x"}], "tool_choice": "none",
          "tools": [{"type": "function", "function": {"name": "f"}}]})",
      defaults());
  EXPECT_FALSE(parsed.request.tools);
  EXPECT_FALSE(parsed.request.conversation.contains("tools"));
}

TEST(DefaultSampling, IsThatOfTheModel) {
  const SamplingOptions plain = server::default_sampling(Json::object());
  EXPECT_EQ(plain.temperature, 1);
  EXPECT_EQ(plain.top_p, 1);
  const SamplingOptions own =
      server::default_sampling({{"temperature", 0.6}, {"top_p", 0.9}, {"top_k", 50}});
  EXPECT_EQ(own.temperature, 0.6f);
  EXPECT_EQ(own.top_p, 0.9f);
  EXPECT_EQ(own.top_k, 50);
  EXPECT_ERROR(server::default_sampling({{"top_p", "high"}}), ErrorKind::kCorrupt, "top_p");
  EXPECT_ERROR(server::default_sampling({{"top_p", 3}}), ErrorKind::kUsage, "top-p");
}

}  // namespace
}  // namespace nibble
