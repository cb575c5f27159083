// POST /v1/embeddings over a real socket, with an encoder of random weights.
#include <cmath>

#include "base/base64.h"
#include "model/oracles.h"
#include "server/running_server.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kLength = 32;  // of the text that transformers has seen

// The tokenizer is another model's: texts are sent as tokens.
class EncoderServer : public test::RunningHttp {
 public:
  explicit EncoderServer(bool normalize = true)
      : oracle(test::source_dir() / "tests/golden/archs/bert_relu_one_type"),
        backend_(test::exact_backend()),
        session_(open_session(oracle.checkpoint->path(), *backend_)),
        embedder_(session_, {.max_model_len = kLength}) {
    server::ServiceOptions options;
    options.names = {"encoder"};
    options.defaults.vocab = oracle.spec.vocab;
    options.normalize_embeddings = normalize;
    service.emplace(test::bundled_tokenizer(), embedder_, std::move(options));
    start(*service, {});
  }
  ~EncoderServer() { stop(); }

  Json embed(Json body) {
    const test::Reply reply = post("/v1/embeddings", body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.json();
  }
  void expect_refusal(const Json& body, const std::string& param, const std::string& text) {
    const test::Reply reply = post("/v1/embeddings", body);
    EXPECT_EQ(reply.status, 400) << reply.body;
    EXPECT_EQ(reply.json()["error"]["param"], param) << reply.body;
    EXPECT_THAT(reply.json()["error"]["message"].get<std::string>(), HasSubstr(text));
  }

  test::Oracle oracle;

 private:
  std::unique_ptr<Backend> backend_;
  Session session_;
  Embedder embedder_;

 public:
  std::optional<server::Service> service;
};

using Floats = std::vector<float>;

double norm(const Floats& values) {
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  return std::sqrt(squares);
}

TEST(Embeddings, AreOpenAIs) {
  EncoderServer server;
  const std::vector<std::int32_t> ids(kLength, 3);
  const Json json = server.embed({{"model", "encoder"}, {"input", {ids, {4, 5}}}, {"user", "u"}});
  EXPECT_EQ(json["object"], "list");
  EXPECT_EQ(json["model"], "encoder");
  EXPECT_EQ(json["usage"], Json({{"prompt_tokens", kLength + 2}, {"total_tokens", kLength + 2}}));
  ASSERT_EQ(json["data"].size(), 2u);
  for (int i = 0; i < 2; ++i) {
    const Json& one = json["data"][static_cast<std::size_t>(i)];
    EXPECT_EQ(one["object"], "embedding");
    EXPECT_EQ(one["index"], i);
    const auto values = one["embedding"].get<Floats>();
    EXPECT_EQ(std::ssize(values), server.oracle.width());
    const double roundings = static_cast<double>(values.size()) * test::unit_roundoff(DType::kF32);
    EXPECT_NEAR(norm(values), 1, roundings);
  }
  // One text is the same alone, whether it is a list or not.
  const Json alone = server.embed({{"input", {4, 5}}});
  const auto company = json["data"][1]["embedding"].get<Floats>();
  EXPECT_LE(test::max_abs_error(alone["data"][0]["embedding"].get<Floats>(), company), 1e-6);
  EXPECT_THAT(server.log().back(), HasSubstr("\"prompt_tokens\":2"));
}

TEST(Embeddings, AreWhatTransformersComputes) {
  EncoderServer server(false);
  const auto values =
      server.embed({{"input", server.oracle.row(0)}})["data"][0]["embedding"].get<Floats>();
  Floats expected(values.size());
  const auto states = server.oracle.expected_rows(0, 0, server.oracle.length());
  for (std::size_t i = 0; i < states.size(); ++i) expected[i % expected.size()] += states[i];
  for (float& value : expected) value /= static_cast<float>(server.oracle.length());
  EXPECT_LE(test::max_abs_error(values, expected), 5e-5);
}

TEST(Embeddings, InBase64AndOfFewerDimensions) {
  EncoderServer server(false);
  Json ask = {{"input", {7, 8, 9}}};
  const auto all = server.embed(ask)["data"][0]["embedding"].get<Floats>();
  EXPECT_GT(std::abs(norm(all) - 1), 1e-3) << "as the checkpoint has it: not normalized";
  ask["encoding_format"] = "base64";
  const std::string bytes =
      decode_base64(server.embed(ask)["data"][0]["embedding"].get<std::string>(), "reply");
  ASSERT_EQ(bytes.size(), all.size() * sizeof(float));
  EXPECT_EQ(std::memcmp(bytes.data(), all.data(), bytes.size()), 0);
  ask["encoding_format"] = "float";
  ask["dimensions"] = 5;
  EXPECT_EQ(server.embed(ask)["data"][0]["embedding"].get<Floats>(),
            Floats(all.begin(), all.begin() + 5));
  ask["normalize"] = true;
  const auto unit = server.embed(ask)["data"][0]["embedding"].get<Floats>();
  EXPECT_NEAR(norm(unit), 1, 1e-6);
  EXPECT_NEAR(unit[2], all[2] / norm(Floats(all.begin(), all.begin() + 5)), 1e-6);
}

TEST(Embeddings, LongTextsAreRefusedOrCut) {
  EncoderServer server;
  const std::vector<std::int32_t> ids(kLength + 1, 3);
  const test::Reply reply = server.post("/v1/embeddings", {{"input", ids}});
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.json()["error"]["code"], "context_length_exceeded");
  const Json cut = server.embed({{"input", ids}, {"truncate_prompt_tokens", -1}});
  EXPECT_EQ(cut["usage"]["prompt_tokens"], kLength);
  const Json shorter = server.embed({{"input", ids}, {"truncate_prompt_tokens", 3}});
  EXPECT_EQ(shorter["usage"]["prompt_tokens"], 3);
}

TEST(Embeddings, RefuseWhatCannotBeMeant) {
  EncoderServer server;
  server.expect_refusal(Json::object(), "input", "missing");
  server.expect_refusal({{"input", Json::array()}}, "input", "not empty");
  server.expect_refusal({{"input", {1, 2.5}}}, "input", "token");
  server.expect_refusal({{"input", ""}, {"add_special_tokens", false}}, "input", "no tokens");
  server.expect_refusal({{"input", {1}}, {"encoding_format", "hex"}}, "encoding_format", "hex");
  server.expect_refusal({{"input", {1}}, {"dimensions", 0}}, "dimensions", "");
  server.expect_refusal({{"input", {1}}, {"dimensions", 1 << 20}}, "dimensions", "");
  server.expect_refusal({{"input", {1}}, {"truncate_prompt_tokens", 0}}, "truncate_prompt_tokens",
                        "nothing");
  EXPECT_EQ(server.post("/v1/embeddings", {{"input", {1}}, {"model", "x"}}).status, 404);
}

TEST(Embeddings, EachKindOfModelHasItsEndpoints) {
  EncoderServer encoder;
  const test::Reply no_text = encoder.post("/v1/completions", {{"prompt", "x"}});
  EXPECT_EQ(no_text.status, 400);
  EXPECT_THAT(no_text.body, HasSubstr("is an encoder"));
  EXPECT_EQ(encoder.call("GET", "/v1/models").json()["data"][0]["max_model_len"], kLength);
  EXPECT_THAT(encoder.call("GET", "/metrics").body, HasSubstr("num_requests_waiting"));
  test::RunningServer decoder;
  const test::Reply no_vector = decoder.post("/v1/embeddings", {{"input", "x"}});
  EXPECT_EQ(no_vector.status, 400);
  EXPECT_THAT(no_vector.body, HasSubstr("is a decoder"));
}

}  // namespace
}  // namespace nibble
