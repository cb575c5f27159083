// POST /v1/completions over a real socket.
#include "server/running_server.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<Json> chunks_of(const test::Reply& reply) {
  std::vector<std::string> events = reply.events();
  EXPECT_EQ(events.back(), "[DONE]");
  events.pop_back();
  std::vector<Json> chunks;
  for (const std::string& event : events) chunks.push_back(parse_json(event, "event"));
  return chunks;
}

TEST(Completions, AnswersWhole) {
  test::RunningServer server;
  const test::Reply reply = server.post("/v1/completions", {{"model", "tiny"}, {"prompt", "Once"}});
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.headers.at("content-type"), "application/json");
  const Json json = reply.json();
  EXPECT_EQ(json["object"], "text_completion");
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_THAT(json["id"].get<std::string>(), testing::StartsWith("cmpl-"));
  ASSERT_EQ(json["choices"].size(), 1u);
  EXPECT_EQ(json["choices"][0]["text"], "one two three");
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json["choices"][0]["logprobs"], nullptr);
  const auto prompt = test::bundled_tokenizer().encode("Once");
  EXPECT_EQ(server.engine.last().prompt, prompt);
  EXPECT_EQ(json["usage"]["prompt_tokens"], prompt.size());
  EXPECT_EQ(json["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
  const std::int64_t answer = json["usage"]["completion_tokens"];
  EXPECT_GE(answer, 3);
  EXPECT_EQ(json["usage"]["total_tokens"], prompt.size() + static_cast<std::size_t>(answer));
}

TEST(Completions, PassesEverySamplingParameterOn) {
  test::RunningServer server;
  const Json body = {{"prompt", {5, 6, 7}},
                     {"max_tokens", 9},
                     {"min_tokens", 2},
                     {"temperature", 0.5},
                     {"top_k", 11},
                     {"top_p", 0.75},
                     {"min_p", 0.125},
                     {"repetition_penalty", 1.25},
                     {"frequency_penalty", -0.5},
                     {"presence_penalty", 1.5},
                     {"logit_bias", {{"3", -100}, {"17", 2.5}}},
                     {"seed", 1234},
                     {"stop", {"END", "\n\n"}},
                     {"stop_token_ids", {8, 9}},
                     {"ignore_eos", true},
                     {"priority", -3}};
  ASSERT_EQ(server.post("/v1/completions", body).status, 200);
  const EngineRequest request = server.engine.last();
  EXPECT_THAT(request.prompt, ElementsAre(5, 6, 7));
  EXPECT_EQ(request.max_tokens, 9);
  EXPECT_EQ(request.min_tokens, 2);
  EXPECT_EQ(request.sampling.temperature, 0.5f);
  EXPECT_EQ(request.sampling.top_k, 11);
  EXPECT_EQ(request.sampling.top_p, 0.75f);
  EXPECT_EQ(request.sampling.min_p, 0.125f);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.25f);
  EXPECT_EQ(request.sampling.frequency_penalty, -0.5f);
  EXPECT_EQ(request.sampling.presence_penalty, 1.5f);
  EXPECT_THAT(request.sampling.logit_bias,
              testing::UnorderedElementsAre(std::pair(3, -100.0f), std::pair(17, 2.5f)));
  EXPECT_EQ(request.sampling.seed, 1234u);
  EXPECT_THAT(request.stop, ElementsAre("END", "\n\n"));
  EXPECT_THAT(request.stop_ids, ElementsAre(8, 9));
  EXPECT_TRUE(request.ignore_eos);
  EXPECT_EQ(request.priority, -3);
  EXPECT_LT(request.logprobs, 0);
  EXPECT_FALSE(request.prompt_logprobs);
}

TEST(Completions, DefaultsAreOpenAIs) {
  test::RunningServer server;
  server.post("/v1/completions", {{"prompt", "x"}});
  EXPECT_EQ(server.engine.last().max_tokens, 16);
  EXPECT_EQ(server.engine.last().sampling.temperature, 1);
  const auto first = server.engine.last().sampling.seed;
  server.post("/v1/completions", {{"prompt", "x"}, {"top_k", -1}, {"temperature", nullptr}});
  EXPECT_NE(server.engine.last().sampling.seed, first) << "answers without a seed differ";
  EXPECT_EQ(server.engine.last().sampling.top_k, 0);
}

TEST(Completions, StreamsPiecesInOrder) {
  test::RunningServer server;
  const test::Reply reply = server.post("/v1/completions", {{"prompt", "Once"}, {"stream", true}});
  EXPECT_EQ(reply.status, 200);
  EXPECT_THAT(reply.headers.at("content-type"), HasSubstr("text/event-stream"));
  const std::vector<Json> chunks = chunks_of(reply);
  ASSERT_EQ(chunks.size(), 3u);
  EXPECT_EQ(chunks[0]["choices"][0]["text"], "one ");
  EXPECT_EQ(chunks[0]["choices"][0]["finish_reason"], nullptr);
  EXPECT_EQ(chunks[1]["choices"][0]["text"], "two ");
  EXPECT_EQ(chunks[2]["choices"][0]["text"], "three");
  EXPECT_EQ(chunks[2]["choices"][0]["finish_reason"], "stop");
  EXPECT_FALSE(chunks[0].contains("usage"));
  EXPECT_EQ(chunks[0]["id"], chunks[2]["id"]);
}

TEST(Completions, StreamEndsWithUsageWhenAsked) {
  test::RunningServer server;
  const std::vector<Json> chunks = chunks_of(server.post(
      "/v1/completions",
      {{"prompt", {1, 2, 3}}, {"stream", true}, {"stream_options", {{"include_usage", true}}}}));
  ASSERT_EQ(chunks.size(), 4u);
  EXPECT_EQ(chunks[0]["usage"], nullptr);
  EXPECT_TRUE(chunks[3]["choices"].empty());
  EXPECT_EQ(chunks[3]["usage"]["prompt_tokens"], 3);
}

TEST(Completions, ManyPromptsAndChoicesKeepTheirPlaces) {
  test::RunningServer server;
  server.engine.script = [](const EngineRequest& request) {
    return test::Script{
        {std::to_string(request.prompt[0]), "/", std::to_string(request.sampling.seed)},
        FinishReason::kLength,
        {},
        false};
  };
  const Json json =
      server
          .post("/v1/completions", {{"prompt", {{41, 1}, {42, 2}, {43}}}, {"n", 2}, {"seed", 100}})
          .json();
  ASSERT_EQ(json["choices"].size(), 6u);
  const char* expected[] = {"41/100", "41/101", "42/100", "42/101", "43/100", "43/101"};
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(json["choices"][i]["index"], i);
    EXPECT_EQ(json["choices"][i]["text"], expected[i]);
    EXPECT_EQ(json["choices"][i]["finish_reason"], "length");
  }
  EXPECT_EQ(json["usage"]["prompt_tokens"], 5) << "each prompt once";
  EXPECT_EQ(json["usage"]["prompt_tokens_details"]["cached_tokens"], 6);
}

TEST(Completions, BestOfKeepsTheLikeliestPerToken) {
  test::RunningServer server;
  // The scripted engine gives every token -0.5: equal scores keep the order of their seeds.
  server.engine.script = [](const EngineRequest& request) {
    return test::Script{{std::to_string(request.sampling.seed)}, FinishReason::kStop, {}, false};
  };
  const Json json =
      server
          .post("/v1/completions",
                {{"prompt", "x"}, {"n", 2}, {"best_of", 4}, {"seed", 10}, {"logprobs", 1}})
          .json();
  EXPECT_EQ(server.engine.submitted().size(), 4u);
  ASSERT_EQ(json["choices"].size(), 2u);
  EXPECT_EQ(json["choices"][0]["text"], "10");
  EXPECT_EQ(json["choices"][1]["text"], "11");
}

TEST(Completions, EchoGivesPromptAndItsLogprobs) {
  test::RunningServer server;
  const auto ids = test::bundled_tokenizer().encode("Once upon");
  ASSERT_GE(ids.size(), 2u);
  const Json json =
      server
          .post("/v1/completions",
                {{"prompt", "Once upon"}, {"echo", true}, {"logprobs", 2}, {"max_tokens", 1}})
          .json();
  EXPECT_TRUE(server.engine.last().prompt_logprobs);
  EXPECT_EQ(server.engine.last().logprobs, 2);
  const Json& choice = json["choices"][0];
  EXPECT_EQ(choice["text"], "Once uponone ");
  const Json& logprobs = choice["logprobs"];
  const std::size_t count = logprobs["tokens"].size();
  EXPECT_GT(count, ids.size());
  EXPECT_EQ(logprobs["token_logprobs"].size(), count);
  EXPECT_EQ(logprobs["top_logprobs"].size(), count);
  EXPECT_EQ(logprobs["token_logprobs"][0], nullptr);
  EXPECT_EQ(logprobs["token_logprobs"][1], -0.5);
  EXPECT_EQ(logprobs["top_logprobs"][1].size(), 2u);
  // The tokens' texts are the text, special tokens aside, and the offsets are where they start.
  std::string joined;
  for (std::size_t i = 0; i < count; ++i) {
    EXPECT_EQ(logprobs["text_offset"][i], joined.size());
    joined += logprobs["tokens"][i].get<std::string>();
  }
  EXPECT_THAT(joined, testing::EndsWith("Once uponone "));
}

TEST(Completions, EchoOfNothingNewScoresAPrompt) {
  test::RunningServer server;
  const Json json =
      server
          .post("/v1/completions",
                {{"prompt", {50, 60, 70}}, {"echo", true}, {"logprobs", 1}, {"max_tokens", 0}})
          .json();
  EXPECT_EQ(json["choices"][0]["logprobs"]["tokens"].size(), 3u);
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(json["usage"]["completion_tokens"], 0);
  EXPECT_EQ(json["choices"][0]["text"], test::bundled_tokenizer().decode({50, 60, 70}, false));
}

TEST(Completions, TokensAsIdsTellEqualSpellingsApart) {
  test::RunningServer server;
  const Json json = server
                        .post("/v1/completions", {{"prompt", {50, 60}},
                                                  {"echo", true},
                                                  {"logprobs", 2},
                                                  {"max_tokens", 1},
                                                  {"return_tokens_as_token_ids", true}})
                        .json();
  EXPECT_EQ(json["choices"][0]["logprobs"]["tokens"][1], "token_id:60");
  EXPECT_TRUE(json["choices"][0]["logprobs"]["top_logprobs"][1].contains("token_id:61"));
}

TEST(Completions, AnswersAreCutToTheContext) {
  test::RunningServer server;
  server.engine.model_len = 8;
  const Json prompt(std::vector<int>(5, 9));
  EXPECT_EQ(server.post("/v1/completions", {{"prompt", prompt}, {"max_tokens", 100}}).status, 200);
  EXPECT_EQ(server.engine.last().max_tokens, 3);
  const test::Reply reply = server.post("/v1/completions", {{"prompt", std::vector<int>(8, 9)}});
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.json()["error"]["code"], "context_length_exceeded");
}

TEST(Completions, EngineErrorsHaveTheirStatus) {
  test::RunningServer server;
  server.engine.script = [](const EngineRequest& request) -> test::Script {
    if (request.prompt[0] == 1) fail(ErrorKind::kUsage, "cannot be meant");
    return {{"a", "b"}, FinishReason::kStop, Error(ErrorKind::kCorrupt, "logit is NaN"), false};
  };
  EXPECT_EQ(server.post("/v1/completions", {{"prompt", {1}}}).status, 400);
  EXPECT_EQ(server.post("/v1/completions", {{"prompt", {{2}, {1}}}}).status, 400);
  EXPECT_TRUE(server.engine.wait_until_idle()) << "the first of two must be cancelled";
  const test::Reply broken = server.post("/v1/completions", {{"prompt", {2}}});
  EXPECT_EQ(broken.status, 500);
  EXPECT_THAT(broken.body, HasSubstr("logit is NaN"));
  const test::Reply stream = server.post("/v1/completions", {{"prompt", {2}}, {"stream", true}});
  EXPECT_EQ(stream.status, 200);
  const auto events = stream.events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_THAT(events[1], HasSubstr("logit is NaN"));
  EXPECT_EQ(events[2], "[DONE]");
  server.engine.max_waiting = 0;
  const test::Reply full = server.post("/v1/completions", {{"prompt", {2}}});
  EXPECT_EQ(full.status, 429);
  EXPECT_EQ(full.json()["error"]["type"], "rate_limit_error");
  EXPECT_EQ(full.headers.at("retry-after"), "1");
}

}  // namespace
}  // namespace nibble
