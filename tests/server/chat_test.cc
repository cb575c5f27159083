// POST /v1/chat/completions, /tokenize and /detokenize over a real socket.
#include "server/running_server.h"

namespace nibble {
namespace {

using testing::HasSubstr;

server::ServiceOptions with_template() {
  server::ServiceOptions options;
  options.chat_template =
      "{% if tools %}[{{ tools | tojson }}]{% endif %}{% for m in messages %}<{{ m.role }}>"
      "{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
  return options;
}

const Json kHello = {{{"role", "user"}, {"content", "Hello"}}};
const Json kTools = {
    {{"type", "function"}, {"function", {{"name", "weather"}, {"parameters", Json::object()}}}}};

std::string prompt_of(const test::RunningServer& server) {
  return test::bundled_tokenizer().decode(server.engine.last().prompt, false);
}

TEST(Chat, AnswersWhole) {
  test::RunningServer server(with_template());
  const test::Reply reply = server.post("/v1/chat/completions", {{"messages", kHello}});
  EXPECT_EQ(reply.status, 200);
  const Json json = reply.json();
  EXPECT_EQ(json["object"], "chat.completion");
  EXPECT_EQ(json["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(json["choices"][0]["message"]["content"], "one two three");
  EXPECT_FALSE(json["choices"][0]["message"].contains("tool_calls"));
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(prompt_of(server), "<user>Hello<assistant>");
  EXPECT_EQ(server.engine.last().max_tokens,
            64 - static_cast<std::int64_t>(server.engine.last().prompt.size()))
      << "all that the context leaves";
}

TEST(Chat, StreamsRoleThenContentThenReason) {
  test::RunningServer server(with_template());
  const test::Reply reply = server.post(
      "/v1/chat/completions",
      {{"messages", kHello}, {"stream", true}, {"stream_options", {{"include_usage", true}}}});
  const auto events = reply.events();
  ASSERT_EQ(events.size(), 6u);
  const auto choice = [&](std::size_t i) { return parse_json(events[i], "event")["choices"][0]; };
  EXPECT_EQ(choice(0)["delta"]["role"], "assistant");
  EXPECT_EQ(choice(1)["delta"], Json::object({{"content", "one "}}));
  EXPECT_EQ(choice(2)["delta"]["content"], "two ");
  EXPECT_EQ(choice(3)["delta"]["content"], "three");
  EXPECT_EQ(choice(3)["finish_reason"], "stop");
  EXPECT_THAT(events[0], HasSubstr("chat.completion.chunk"));
  EXPECT_GT(parse_json(events[4], "event")["usage"]["completion_tokens"], 2);
  EXPECT_EQ(events[5], "[DONE]");
}

TEST(Chat, GivesLogprobs) {
  test::RunningServer server(with_template());
  const Json json = server
                        .post("/v1/chat/completions",
                              {{"messages", kHello}, {"logprobs", true}, {"top_logprobs", 2}})
                        .json();
  const Json& content = json["choices"][0]["logprobs"]["content"];
  EXPECT_EQ(content.size(), json["usage"]["completion_tokens"]);
  EXPECT_EQ(content[0]["logprob"], -0.5);
  EXPECT_EQ(content[0]["top_logprobs"].size(), 2u);
  std::string joined;
  for (const Json& token : content) {
    const auto text = token["token"].get<std::string>();
    joined += text;
    EXPECT_EQ(token["bytes"].size(), text.size());
  }
  EXPECT_EQ(joined, "one two three");
}

TEST(Chat, ParsesToolCallsBack) {
  test::RunningServer server(with_template());
  server.engine.script = [](const EngineRequest&) {
    return test::Script{{"Hm. <tool", "_call>{\"name\": \"weather\", \"argum",
                         "ents\": {\"city\": \"Rome\"}}</tool_call>"},
                        FinishReason::kStop,
                        {},
                        false};
  };
  Json body = {{"messages", kHello}, {"tools", kTools}};
  const Json whole = server.post("/v1/chat/completions", body).json()["choices"][0];
  EXPECT_THAT(prompt_of(server), HasSubstr("\"weather\""));
  EXPECT_EQ(whole["finish_reason"], "tool_calls");
  EXPECT_EQ(whole["message"]["content"], "Hm. ");
  const Json& call = whole["message"]["tool_calls"][0];
  EXPECT_EQ(call["type"], "function");
  EXPECT_EQ(call["function"]["name"], "weather");
  EXPECT_EQ(call["function"]["arguments"], R"({"city":"Rome"})");
  body["stream"] = true;
  const auto events = server.post("/v1/chat/completions", body).events();
  const Json last = parse_json(events[events.size() - 2], "event")["choices"][0];
  EXPECT_EQ(last["finish_reason"], "tool_calls");
  EXPECT_EQ(last["delta"]["tool_calls"][0]["index"], 0);
  EXPECT_EQ(last["delta"]["tool_calls"][0]["function"]["name"], "weather");
  // Without tools the same text is text.
  const Json plain =
      server.post("/v1/chat/completions", {{"messages", kHello}}).json()["choices"][0];
  EXPECT_THAT(plain["message"]["content"].get<std::string>(), HasSubstr("<tool_call>"));
  EXPECT_EQ(plain["finish_reason"], "stop");
}

TEST(Chat, TemplatesRefuseWithTheirReason) {
  server::ServiceOptions options;
  options.chat_template = "{{ raise_exception('roles must alternate') }}";
  test::RunningServer server(options);
  const test::Reply reply = server.post("/v1/chat/completions", {{"messages", kHello}});
  EXPECT_EQ(reply.status, 400);
  EXPECT_THAT(reply.body, HasSubstr("roles must alternate"));
}

TEST(Tokens, GoThereAndBack) {
  test::RunningServer server(with_template());
  const Json tokens =
      server.post("/tokenize", {{"prompt", "Once upon"}, {"return_token_strs", true}}).json();
  const auto ids = test::bundled_tokenizer().encode("Once upon");
  EXPECT_EQ(tokens["tokens"], Json(ids));
  EXPECT_EQ(tokens["count"], ids.size());
  EXPECT_EQ(tokens["max_model_len"], 64);
  EXPECT_EQ(tokens["token_strs"].size(), ids.size());
  const auto plain = test::bundled_tokenizer().encode("Once upon", {.add_special = false});
  EXPECT_EQ(server.post("/tokenize", {{"prompt", "Once upon"}, {"add_special_tokens", false}})
                .json()["tokens"],
            Json(plain));
  EXPECT_EQ(server.post("/detokenize", {{"tokens", plain}}).json()["prompt"], "Once upon");
  EXPECT_EQ(
      server.post("/tokenize", {{"messages", kHello}}).json()["tokens"],
      Json(test::bundled_tokenizer().encode("<user>Hello<assistant>", {.add_special = false})));
  EXPECT_EQ(server.post("/tokenize", {{"text", "x"}}).status, 400);
  EXPECT_EQ(server.post("/detokenize", {{"tokens", {1, -1}}}).status, 400);
}

}  // namespace
}  // namespace nibble
