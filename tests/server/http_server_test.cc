// What clients of all manners meet: routes, keys, limits, timeouts, cancellation, drain.
#include "server/http_server.h"

#include <chrono>
#include <csignal>
#include <optional>
#include <thread>

#include "server/running_server.h"

namespace nibble {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

const Json kPrompt = {{"prompt", {5, 6}}};

test::Script hanging(const EngineRequest&) { return {{"first "}, FinishReason::kStop, {}, true}; }

TEST(HttpServer, AnswersWhatItIs) {
  test::RunningServer server;
  EXPECT_EQ(server.call("GET", "/health").status, 200);
  EXPECT_EQ(server.call("GET", "/version").json()["version"], NIBBLE_VERSION);
  const Json models = server.call("GET", "/v1/models").json();
  EXPECT_EQ(models["object"], "list");
  ASSERT_EQ(models["data"].size(), 2u);
  EXPECT_EQ(models["data"][0]["id"], "tiny");
  EXPECT_EQ(models["data"][1]["id"], "alias");
  EXPECT_EQ(server.call("GET", "/v1/models/alias?x=1").json()["id"], "alias");
  EXPECT_EQ(server.call("GET", "/v1/models/other").status, 404);
  const test::Reply page = server.call("GET", "/");
  EXPECT_THAT(page.headers.at("content-type"), HasSubstr("text/html"));
  EXPECT_THAT(page.body, HasSubstr("<!doctype html>"));
  EXPECT_THAT(page.headers.at("content-security-policy"), HasSubstr("default-src 'none'"));
}

TEST(HttpServer, PageLoadsNothingFromElsewhere) {
  test::RunningServer server;
  const std::string page = server.call("GET", "/").body;
  for (const char* outside : {"http://", "https://", "src=\"//", "@import"}) {
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  }
}

TEST(HttpServer, ErrorsHaveOpenAIsForm) {
  test::RunningServer server;
  const auto expect = [&](const test::Reply& reply, int status, const char* type) {
    EXPECT_EQ(reply.status, status) << reply.body;
    const Json error = reply.json()["error"];
    EXPECT_EQ(error["type"], type);
    EXPECT_TRUE(error["message"].is_string());
    EXPECT_TRUE(error.contains("param"));
    EXPECT_TRUE(error.contains("code"));
  };
  expect(server.call("GET", "/v2"), 404, "not_found_error");
  expect(server.call("POST", "/v1/completions", "{"), 400, "invalid_request_error");
  expect(server.call("POST", "/v1/completions", "{\"prompt\": \"\xff\"}"), 400,
         "invalid_request_error");
  expect(server.call("POST", "/v1/completions", "{}", "Content-Type: text/plain\r\n"), 415,
         "invalid_request_error");
  const test::Reply method = server.call("GET", "/v1/completions");
  expect(method, 405, "invalid_request_error");
  EXPECT_EQ(method.headers.at("allow"), "POST");
  const test::Reply model = server.post("/v1/completions", {{"model", "gpt-9"}, {"prompt", "x"}});
  expect(model, 404, "not_found_error");
  EXPECT_EQ(model.json()["error"]["code"], "model_not_found");
}

TEST(HttpServer, DoesNotRepeatWhatItCouldNotRead) {
  test::RunningServer server;
  const test::Reply reply =
      server.call("POST", "/v1/completions", "{\"prompt\": \"my secret \xff\"}");
  EXPECT_EQ(reply.status, 400);
  EXPECT_THAT(reply.body, testing::Not(HasSubstr("secret")));
  server.stop();
  for (const std::string& line : server.log()) EXPECT_THAT(line, testing::Not(HasSubstr("secret")));
}

TEST(HttpServer, WantsAKeyWhereItHasOne) {
  server::ServiceOptions options;
  options.api_keys = {"sk-first", "sk-second"};
  test::RunningServer server(options);
  const auto status = [&](const std::string& headers) {
    return server.call("GET", "/v1/models", "", headers).status;
  };
  EXPECT_EQ(status(""), 401);
  EXPECT_EQ(status("Authorization: sk-first\r\n"), 401);
  EXPECT_EQ(status("Authorization: Bearer \r\n"), 401);
  EXPECT_EQ(status("Authorization: Bearer sk-firs\r\n"), 401);
  EXPECT_EQ(status("Authorization: Bearer sk-firstsk-first\r\n"), 401);
  EXPECT_EQ(status("Authorization: Bearer sk-first\r\n"), 200);
  EXPECT_EQ(status("Authorization: Bearer sk-second\r\n"), 200);
  EXPECT_EQ(server.call("POST", "/v1/completions", kPrompt.dump()).status, 401);
  EXPECT_EQ(server.call("POST", "/tokenize", "{}").status, 401);
  for (const char* open : {"/health", "/metrics", "/", "/version"}) {
    EXPECT_EQ(server.call("GET", open).status, 200) << open;
  }
  server.stop();
  for (const std::string& line : server.log()) EXPECT_THAT(line, testing::Not(HasSubstr("sk-")));
}

TEST(HttpServer, KeepsAConnectionAndPipelines) {
  test::RunningServer server;
  test::RawClient client(server.port);
  const std::string request = test::request_text("POST", "/v1/completions", kPrompt.dump());
  client.send(request + request + test::request_text("GET", "/health", ""));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(client.reply().json()["choices"][0]["text"], "one two three");
  }
  EXPECT_EQ(client.reply().status, 200);
  client.send(test::request_text("GET", "/health", "", "Connection: close\r\n"));
  EXPECT_EQ(client.reply().headers.at("connection"), "close");
  EXPECT_FALSE(client.receive());
}

TEST(HttpServer, SpeaksToOldClients) {
  test::RunningServer server;
  test::RawClient client(server.port);
  Json body = kPrompt;
  body["stream"] = true;
  std::string request = test::request_text("POST", "/v1/completions", body.dump());
  request.replace(request.find("HTTP/1.1"), 8, "HTTP/1.0");
  client.send(request);
  while (client.receive()) {
  }
  EXPECT_THAT(client.received(), testing::Not(HasSubstr("chunked")));
  EXPECT_THAT(client.received(), testing::EndsWith("data: [DONE]\n\n"));
}

TEST(HttpServer, SaysContinueToClientsThatWait) {
  test::RunningServer server;
  test::RawClient client(server.port);
  const std::string text =
      test::request_text("POST", "/v1/completions", kPrompt.dump(), "Expect: 100-continue\r\n");
  const std::size_t body = text.find("\r\n\r\n") + 4;
  client.send(text.substr(0, body));
  ASSERT_TRUE(client.receive_until("100 Continue\r\n\r\n"));
  client.send(text.substr(body));
  EXPECT_EQ(client.reply().status, 200);
}

TEST(HttpServer, LimitsHeadersAndBodies) {
  server::HttpOptions http;
  http.max_body_bytes = 10'000;
  http.max_header_bytes = 2'000;
  test::RunningServer server({}, http);
  test::RawClient large(server.port);
  // All of a body that nobody will read: the answer must still arrive.
  large.send(test::request_text("POST", "/v1/completions", std::string(3'000'000, 'x')));
  const test::Reply reply = large.reply();
  EXPECT_EQ(reply.status, 413);
  EXPECT_EQ(reply.headers.at("connection"), "close");
  test::RawClient chunked(server.port);
  chunked.send(
      "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
      "Transfer-Encoding: chunked\r\n\r\n4e20\r\n" +
      std::string(20'000, 'x'));
  EXPECT_EQ(chunked.reply().status, 413);
  EXPECT_EQ(server.call("GET", "/health", "", "X-Long: " + std::string(4'000, 'x') + "\r\n").status,
            431);
  EXPECT_EQ(server.call("GET", "/health").status, 200);
}

TEST(HttpServer, RefusesWhatIsNoHttp) {
  test::RunningServer server;
  test::RawClient client(server.port);
  client.send("\x16\x03\x01 hello\r\n\r\n");
  EXPECT_EQ(client.reply().status, 400);
}

TEST(HttpServer, CutsSlowClientsOff) {
  server::HttpOptions http;
  http.read_timeout = milliseconds(150);
  test::RunningServer server({}, http);
  test::RawClient silent(server.port);
  test::RawClient halfway(server.port);
  halfway.send(
      "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
      "Content-Length: 100\r\n\r\n{");
  EXPECT_FALSE(silent.receive());
  EXPECT_FALSE(halfway.receive());
  // An answer that takes longer than a request may is not cut off.
  server.engine.script = hanging;
  test::RawClient waiting(server.port);
  waiting.send(test::request_text("POST", "/v1/completions", kPrompt.dump()));
  std::this_thread::sleep_for(milliseconds(400));
  EXPECT_EQ(server.engine.cancelled(), 0);
}

TEST(HttpServer, CutsOffAClientThatTakesNothing) {
  server::HttpOptions http;
  http.write_timeout = milliseconds(300);
  http.max_unsent_bytes = 1 << 20;
  test::RunningServer server({}, http);
  server.engine.script = [](const EngineRequest&) {
    return test::Script{
        std::vector<std::string>(60, std::string(200'000, 'x')), FinishReason::kStop, {}, true};
  };
  test::RawClient client(server.port, 1 << 16);
  Json body = kPrompt;
  body["stream"] = true;
  body["max_tokens"] = 63;
  client.send(test::request_text("POST", "/v1/completions", body.dump()));
  EXPECT_TRUE(server.engine.wait_until_idle() || server.engine.cancelled() == 1);
  for (int i = 0; i < 100 && server.engine.cancelled() == 0; ++i) {
    std::this_thread::sleep_for(milliseconds(50));
  }
  EXPECT_EQ(server.engine.cancelled(), 1);
}

TEST(HttpServer, AClientThatVanishesEndsItsRequest) {
  for (const bool stream : {true, false}) {
    test::RunningServer server;
    server.engine.script = hanging;
    Json body = {{"prompt", {5}}, {"n", 3}, {"stream", stream}};
    {
      test::RawClient client(server.port);
      client.send(test::request_text("POST", "/v1/completions", body.dump()));
      if (stream) {
        ASSERT_TRUE(client.receive_until("first "));
      }
      while (server.engine.submitted().size() < 3) std::this_thread::sleep_for(milliseconds(1));
    }
    EXPECT_TRUE(server.engine.wait_until_idle());
    EXPECT_EQ(server.engine.cancelled(), 3) << stream;
    server.stop();
    ASSERT_EQ(server.log().size(), 1u);
    EXPECT_EQ(parse_json(server.log()[0], "log")["status"], 499);
  }
}

TEST(HttpServer, OthersGoOnBesideOneThatHangs) {
  test::RunningServer server;
  server.engine.script = [](const EngineRequest& request) {
    return request.prompt[0] == 1 ? hanging(request)
                                  : test::Script{{"fine"}, FinishReason::kStop, {}, false};
  };
  test::RawClient hanging_client(server.port);
  hanging_client.send(test::request_text("POST", "/v1/completions", R"({"prompt": [1]})"));
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(server.post("/v1/completions", {{"prompt", {2}}}).status, 200);
  }
}

TEST(HttpServer, ManyStreamsAtOnceEachGetTheirOwn) {
  test::RunningServer server;
  server.engine.script = [](const EngineRequest& request) {
    return test::Script{
        {"<", std::to_string(request.prompt[0]), ">"}, FinishReason::kStop, {}, false};
  };
  std::vector<std::unique_ptr<test::RawClient>> clients;
  for (int i = 0; i < 200; ++i) {
    clients.push_back(std::make_unique<test::RawClient>(server.port));
    clients.back()->send(test::request_text("POST", "/v1/completions",
                                            Json{{"prompt", {i}}, {"stream", true}}.dump()));
  }
  for (int i = 0; i < 200; ++i) {
    std::string text;
    const auto events = clients[static_cast<std::size_t>(i)]->reply().events();
    for (std::size_t e = 0; e + 1 < events.size(); ++e) {
      text += parse_json(events[e], "event")["choices"][0]["text"].get<std::string>();
    }
    EXPECT_EQ(text, "<" + std::to_string(i) + ">");
  }
}

TEST(HttpServer, KeepsSaneRequestIds) {
  test::RunningServer server;
  const auto id = [&](const std::string& headers) {
    return server.call("GET", "/health", "", headers).headers.at("x-request-id");
  };
  EXPECT_EQ(id("X-Request-Id: abc-1.2_3:4\r\n"), "abc-1.2_3:4");
  EXPECT_THAT(id("X-Request-Id: a b\"\r\n"), testing::StartsWith("req-"));
  EXPECT_THAT(id("X-Request-Id: " + std::string(200, 'a') + "\r\n"), testing::StartsWith("req-"));
  EXPECT_NE(id(""), id(""));
}

TEST(HttpServer, LogsEachRequestAsJson) {
  test::RunningServer server;
  server.call("POST", "/v1/completions", R"({"prompt": [5, 6, 7], "flavour": 1})",
              "X-Request-Id: mine\r\n");
  server.call("GET", "/nowhere");
  server.stop();
  const auto log = server.log();
  ASSERT_EQ(log.size(), 2u);
  const Json line = parse_json(log[0], "log");
  EXPECT_EQ(line["request_id"], "mine");
  EXPECT_EQ(line["client"], "127.0.0.1");
  EXPECT_EQ(line["method"], "POST");
  EXPECT_EQ(line["path"], "/v1/completions");
  EXPECT_EQ(line["status"], 200);
  EXPECT_EQ(line["prompt_tokens"], 3);
  EXPECT_GE(line["completion_tokens"], 3);
  EXPECT_EQ(line["ignored"], "flavour");
  EXPECT_GT(line["seconds"], 0);
  EXPECT_EQ(parse_json(log[1], "log")["status"], 404);
}

TEST(HttpServer, DrainsGracefully) {
  auto server = std::make_unique<test::RunningServer>();
  server->engine.script = [](const EngineRequest&) {
    return test::Script{std::vector<std::string>(50, "word "), FinishReason::kStop, {}, false};
  };
  test::RawClient idle(server->port);
  idle.send(test::request_text("GET", "/health", ""));
  EXPECT_EQ(idle.reply().status, 200);
  test::RawClient busy(server->port);
  busy.send(test::request_text("POST", "/v1/completions",
                               R"({"prompt": [5], "max_tokens": 50, "stream": true})"));
  ASSERT_TRUE(busy.receive_until("word "));
  server->stop();
  EXPECT_FALSE(idle.receive()) << "an idle connection is closed";
  EXPECT_THAT(busy.reply().body, testing::EndsWith("data: [DONE]\n\n")) << "a busy one is not";
  EXPECT_THROW(test::RawClient(server->port), std::runtime_error);
}

TEST(HttpServer, ASignalEndsItWithAndWithoutConnections) {
  for (const bool connected : {false, true}) {
    server::HttpOptions http;
    http.handle_signals = true;
    test::RunningServer server({}, http);
    std::optional<test::RawClient> client;
    if (connected) {
      client.emplace(server.port);
      client->send(test::request_text("GET", "/health", ""));
      EXPECT_EQ(client->reply().status, 200);
    }
    std::raise(SIGTERM);
    for (int i = 0; i < 500 && !server.ended; ++i) std::this_thread::sleep_for(milliseconds(10));
    EXPECT_TRUE(server.ended) << "connected: " << connected;
    if (!server.ended) std::raise(SIGTERM);  // a second signal ends it at once
  }
}

TEST(HttpServer, DrainEndsWhatHangsAfterItsTime) {
  server::HttpOptions http;
  http.drain_timeout = milliseconds(200);
  test::RunningServer server({}, http);
  server.engine.script = hanging;
  test::RawClient client(server.port);
  client.send(test::request_text("POST", "/v1/completions", kPrompt.dump()));
  while (server.engine.submitted().empty()) std::this_thread::sleep_for(milliseconds(1));
  server.stop();
  EXPECT_EQ(server.engine.cancelled(), 1);
}

TEST(HttpServer, ListensOnAUnixSocket) {
  const test::TempDir dir;
  const std::string path = dir / "socket";
  test::ScriptedEngine engine(test::bundled_tokenizer());  // no request reaches it
  server::ServiceOptions options;
  options.names = {"tiny"};
  options.defaults.vocab = 100;
  server::Service service(test::bundled_tokenizer(), engine, options);
  {
    server::HttpServer server(server::listen_unix(path), {}, server::make_api(service));
    std::thread thread([&] { server.run(); });
    {
      test::RawClient client(path);
      client.send(test::request_text("GET", "/health", ""));
      EXPECT_EQ(client.reply().status, 200);
    }
    EXPECT_ERROR(server::listen_unix(path), ErrorKind::kDisk, "another server");
    server.drain();
    thread.join();
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_ERROR(server::listen_unix(std::string(200, 'x')), ErrorKind::kUsage, "--uds");
}

TEST(HttpServer, SaysWhyItCannotListen) {
  const server::Listener first = server::listen_tcp("127.0.0.1", 0);
  EXPECT_ERROR(server::listen_tcp("127.0.0.1", first.port()), ErrorKind::kDisk, "another server");
  EXPECT_ERROR(server::listen_tcp("no.such.host.invalid", 0), ErrorKind::kUsage, "--host");
}

}  // namespace
}  // namespace nibble
