// The load client against a server, its traces and its figures.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "server/load/load_report.h"
#include "server/running_server.h"

namespace nibble {
namespace {

std::string file_of(const test::TempDir& dir, const std::string& content) {
  const std::string path = dir / "trace";
  std::ofstream(path) << content;
  return path;
}

TEST(Trace, ReadsAzuresCsv) {
  const test::TempDir dir;
  const auto requests = server::read_trace(file_of(dir,
                                                   "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                                                   "2023-11-16 23:59:59.5000000,4808,10\r\n"
                                                   "2023-11-17 00:00:01.2500000,3180,8\r\n"),
                                           0);
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].arrival, 0);
  EXPECT_NEAR(requests[1].arrival, 1.75, 1e-6);
  EXPECT_EQ(requests[0].input, 4808);
  EXPECT_EQ(requests[1].output, 8);
}

TEST(Trace, ReadsMooncakesLines) {
  const test::TempDir dir;
  const std::string path = file_of(
      dir,
      "{\"timestamp\": 500, \"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [0, 1, "
      "2]}\n"
      "{\"timestamp\": 2500, \"input_length\": 700, \"output_length\": 6, \"hash_ids\": [0, 9]}\n");
  const auto requests = server::read_trace(path, 0);
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[1].arrival, 2);
  EXPECT_EQ(server::read_trace(path, 1).size(), 1u);
  // Equal blocks are equal tokens, others are not.
  const auto first = server::prompt_tokens(requests[0], 0, 1000, 3);
  const auto second = server::prompt_tokens(requests[1], 1, 1000, 3);
  ASSERT_EQ(first.size(), 1100u);
  ASSERT_EQ(second.size(), 700u);
  EXPECT_TRUE(std::equal(first.begin(), first.begin() + 512, second.begin()));
  EXPECT_FALSE(std::equal(first.begin() + 512, first.begin() + 520, second.begin() + 512));
  for (const std::int32_t id : first) EXPECT_TRUE(id >= 100 && id < 1000);
}

TEST(Trace, RefusesOtherFiles) {
  const test::TempDir dir;
  for (const char* content :
       {"", "hello\n", "{\"timestamp\": 1}\n", "2023-11-16 1:2:3,-5,1\n",
        "{\"timestamp\": 1, \"input_length\": 1e18, \"output_length\": 1}\n"}) {
    EXPECT_ERROR(server::read_trace(file_of(dir, content), 0), ErrorKind::kCorrupt, "trace");
  }
  EXPECT_ERROR(server::read_trace(dir / "none", 0), ErrorKind::kCorrupt, "none");
}

TEST(Trace, PoissonArrivalsHaveTheirRate) {
  const auto requests = server::uniform_load(4000, 10, 20, 50, 7);
  EXPECT_TRUE(std::is_sorted(requests.begin(), requests.end(),
                             [](const auto& a, const auto& b) { return a.arrival < b.arrival; }));
  // 4000 gaps of mean 1/50: their sum has a standard deviation of sqrt(4000)/50.
  EXPECT_NEAR(requests.back().arrival, 80, 4 * std::sqrt(4000.0) / 50);
  EXPECT_EQ(server::uniform_load(3, 1, 1, 0, 0).back().arrival, 0);
}

TEST(LoadReport, IsWorkedByHand) {
  server::LoadRecord a;  // sent at 1, tokens at 1.5, 1.7, 1.9, ended at 2
  a.sent = 1;
  a.chunks = {1.5, 1.7, 1.9};
  a.ended = 2;
  a.prompt_tokens = 10;
  a.output_tokens = 3;
  server::LoadRecord b = a;  // twice as slow
  b.chunks = {2, 2.4, 2.8};
  b.ended = 3;
  server::LoadRecord bad;
  bad.sent = 1;
  bad.ended = 1.1;
  bad.error = "503";
  const auto report = server::load_report({{a, b, bad}}, {.first_token = 0.6});
  EXPECT_EQ(report.completed, 2);
  EXPECT_EQ(report.failed, 1);
  EXPECT_EQ(report.errors.at("503"), 1);
  EXPECT_DOUBLE_EQ(report.seconds, 2);
  EXPECT_DOUBLE_EQ(report.request_throughput, 1);
  EXPECT_DOUBLE_EQ(report.output_throughput, 3);
  EXPECT_DOUBLE_EQ(report.total_throughput, 13);
  EXPECT_DOUBLE_EQ(report.goodput, 0.5);
  EXPECT_DOUBLE_EQ(report.ttft.mean, 0.75);
  EXPECT_DOUBLE_EQ(report.tpot.max, 0.5);
  EXPECT_DOUBLE_EQ(report.tpot.mean, 0.375);
  EXPECT_NEAR(report.itl.p50, 0.3, 1e-12);
  EXPECT_DOUBLE_EQ(report.e2e.max, 2);
}

TEST(LoadReport, AWindowCountsWhatCameInIt) {
  server::LoadRecord whole;  // pieces of two tokens
  whole.chunks = {0.5, 1, 1.5};
  whole.ended = 1.5;
  whole.output_tokens = 6;
  server::LoadRecord cut;
  cut.chunks = {0.9, 1.1, 1.9, 2};
  cut.ended = 2;
  cut.cut = true;
  server::LoadRecord failed = whole;
  failed.error = "503";
  const auto report = server::load_report({{whole, cut, failed}, 1, 2}, {});
  EXPECT_EQ(report.completed, 1);
  EXPECT_EQ(report.failed, 1);
  EXPECT_EQ(report.cut, 1);
  EXPECT_DOUBLE_EQ(report.window_seconds, 1);
  // 1 and 1.5 of the first, 1.1 and 1.9 of the second; 2 is outside.
  EXPECT_DOUBLE_EQ(report.window_throughput, 8);
}

TEST(LoadReport, PercentilesAreNumpys) {
  // numpy.percentile([1, 2, 3, 4, 10], [50, 90, 95, 99]) = 3, 7.6, 8.8, 9.76
  const server::Percentiles p = server::percentiles({10, 1, 4, 2, 3});
  EXPECT_DOUBLE_EQ(p.mean, 4);
  EXPECT_DOUBLE_EQ(p.p50, 3);
  EXPECT_DOUBLE_EQ(p.p90, 7.6);
  EXPECT_DOUBLE_EQ(p.p95, 8.8);
  EXPECT_DOUBLE_EQ(p.p99, 9.76);
  EXPECT_EQ(server::percentiles({}).max, 0);
}

server::LoadOptions load_options(const test::RunningServer& server) {
  server::LoadOptions options;
  options.url = "http://127.0.0.1:" + std::to_string(server.port) + "/v1/";
  return options;
}

TEST(LoadClient, MeasuresAServer) {
  test::RunningServer server;
  server.engine.model_len = 1000;
  server.engine.script = [](const EngineRequest& request) {
    return test::Script{std::vector<std::string>(static_cast<std::size_t>(request.max_tokens), "a"),
                        FinishReason::kLength,
                        {},
                        false};
  };
  server::LoadOptions options = load_options(server);
  options.concurrency = 4;
  const auto records = server::run_load(server::uniform_load(20, 30, 7, 0, 1), options).records;
  ASSERT_EQ(records.size(), 20u);
  for (const auto& record : records) {
    EXPECT_EQ(record.error, "");
    EXPECT_EQ(record.chunks.size(), 7u);
    EXPECT_EQ(record.output_tokens, 7);
    EXPECT_EQ(record.prompt_tokens, 30);
    EXPECT_GE(record.chunks.front(), record.sent);
    EXPECT_GE(record.ended, record.chunks.back());
  }
  EXPECT_EQ(server.engine.submitted().size(), 20u);
  EXPECT_TRUE(server.engine.last().ignore_eos);
  // Never more than four under way.
  for (const auto& record : records) {
    const auto overlapping = std::count_if(records.begin(), records.end(), [&](const auto& other) {
      return other.sent <= record.sent && other.ended > record.sent;
    });
    EXPECT_LE(overlapping, 4);
  }
}

TEST(LoadClient, StopsAtTheEndOfAWindow) {
  test::RunningServer server;
  server.engine.model_len = 1000;
  server::LoadOptions options = load_options(server);
  options.window_seconds = 0.2;
  EXPECT_ERROR(server::run_load(server::uniform_load(9, 30, 7, 0, 1), options), ErrorKind::kUsage,
               "under way");
  options.concurrency = 4;
  const auto run = server::run_load(server::uniform_load(100'000, 30, 7, 0, 1), options);
  EXPECT_GE(run.window_end - run.window_begin, 0.2);
  EXPECT_LT(run.records.size(), 100'000u);
  for (const auto& record : run.records) {
    EXPECT_EQ(record.error, "");
    EXPECT_LE(record.ended, run.window_end);
    EXPECT_TRUE(record.cut ? record.ended == run.window_end : record.ended > record.sent);
  }
  EXPECT_ERROR(server::run_load(server::uniform_load(6, 30, 7, 0, 1), options), ErrorKind::kUsage,
               "send more");
}

TEST(LoadClient, CountsFailures) {
  test::RunningServer server;
  server.engine.model_len = 20;
  const auto records =
      server::run_load(server::uniform_load(3, 30, 7, 0, 1), load_options(server)).records;
  for (const auto& record : records) EXPECT_THAT(record.error, testing::StartsWith("400 "));
  server.engine.model_len = 100;
  server.engine.script = [](const EngineRequest&) {
    return test::Script{{"a", "b"}, FinishReason::kStop, Error(ErrorKind::kCorrupt, "NaN"), false};
  };
  const auto broken =
      server::run_load(server::uniform_load(1, 30, 7, 0, 1), load_options(server)).records;
  EXPECT_THAT(broken[0].error, testing::HasSubstr("NaN"));
}

TEST(LoadClient, ArrivalsAreKept) {
  test::RunningServer server;
  auto requests = server::uniform_load(2, 3, 3, 0, 1);
  requests[1].arrival = 0.6;
  server::LoadOptions options = load_options(server);
  options.time_scale = 2;
  const auto records = server::run_load(requests, options).records;
  EXPECT_GE(records[1].sent, 0.3);
  EXPECT_LT(records[0].sent, 0.3);
}

TEST(LoadClient, SaysWhatIsWrongWithAnAddress) {
  server::LoadOptions options;
  for (const char* url : {"", "localhost:8000", "https://x", "http://", "http://:80"}) {
    options.url = url;
    EXPECT_ERROR(server::run_load({}, options), ErrorKind::kUsage, "--url");
  }
  options.url = "http://127.0.0.1:1";
  EXPECT_ERROR(server::run_load({}, options), ErrorKind::kDisk, "is the server running");
}

}  // namespace
}  // namespace nibble
