#include "server/metrics.h"

#include <regex>
#include <sstream>

#include "server/running_server.h"

namespace nibble {
namespace {

using testing::HasSubstr;

TEST(Metrics, BucketsAreCumulative) {
  server::Histogram histogram({1, 2, 5});
  for (const double value : {0.5, 1.0, 1.5, 5.0, 9.0}) histogram.observe(value);
  std::string out;
  histogram.render("h", "l=\"x\"", out);
  EXPECT_EQ(out,
            "h_bucket{l=\"x\",le=\"1\"} 2\n"
            "h_bucket{l=\"x\",le=\"2\"} 3\n"
            "h_bucket{l=\"x\",le=\"5\"} 4\n"
            "h_bucket{l=\"x\",le=\"+Inf\"} 5\n"
            "h_sum{l=\"x\"} 17\n"
            "h_count{l=\"x\"} 5\n");
}

TEST(Metrics, EscapeTheModelsName) {
  EXPECT_THAT(server::Metrics().render({}, "a\"b\\c\nd"),
              HasSubstr("model_name=\"a\\\"b\\\\c\\nd\""));
}

TEST(Metrics, AreValidAndNamedAsVllmNamesThem) {
  test::RunningServer server;
  for (int i = 0; i < 3; ++i) server.post("/v1/completions", {{"prompt", {5, 6}}});
  const test::Reply reply = server.call("GET", "/metrics");
  EXPECT_THAT(reply.headers.at("content-type"), HasSubstr("version=0.0.4"));
  std::istringstream lines(reply.body);
  const std::regex sample(R"([a-z]+:[a-z0-9_]+\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\} [-+.eE0-9]+)");
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# HELP ") || line.starts_with("# TYPE ")) continue;
    EXPECT_TRUE(std::regex_match(line, sample)) << line;
  }
  for (const std::string prefix : {"nibble:", "vllm:"}) {
    for (const char* line :
         {"num_requests_waiting{model_name=\"tiny\"} 7",
          "kv_cache_usage_perc{model_name=\"tiny\"} 0.25",
          "generation_tokens_total{model_name=\"tiny\"} 42",
          "time_to_first_token_seconds_count{model_name=\"tiny\"} 3",
          "e2e_request_latency_seconds_count{model_name=\"tiny\"} 3",
          "request_queue_time_seconds_count{model_name=\"tiny\"} 3",
          "request_prompt_tokens_sum{model_name=\"tiny\"} 6",
          "request_success_total{model_name=\"tiny\",finished_reason=\"stop\"} 3",
          "http_responses_total{model_name=\"tiny\",status=\"200\"} 3",
          "request_success_total{model_name=\"tiny\",finished_reason=\"abort\"} 0",
          "num_requests_running{", "num_preemptions_total{", "prefix_cache_queries_total{",
          "prefix_cache_hits_total{", "inter_token_latency_seconds_bucket{",
          "prompt_tokens_total{"}) {
      EXPECT_THAT(reply.body, HasSubstr("\n" + prefix + line));
    }
  }
}

}  // namespace
}  // namespace nibble
