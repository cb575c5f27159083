#include "cli/commands/bench_serve.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "server/load/load_report.h"

namespace nibble::cli {
namespace {

struct LoadBenchOptions {
  std::string trace;
  std::size_t prompts = 0;
  std::int64_t input = 512;
  std::int64_t output = 128;
  std::int64_t most_input = 0;
  std::int64_t most_output = 0;
  double rate = 0;
  server::LoadGoal goal_ms;
  server::LoadOptions load;
};

// The first ones of a run with a window are shorter, each by another part, as if they had been
// under way before: so they do not all end at once.
std::vector<server::LoadRequest> uniform(const LoadBenchOptions& options) {
  constexpr std::size_t kDefaultPrompts = 100, kEnough = 100'000;
  const bool window = options.load.window_seconds > 0;
  const std::size_t count = options.prompts > 0 ? options.prompts
                            : window            ? kEnough
                                                : kDefaultPrompts;
  std::vector<server::LoadRequest> requests =
      server::uniform_load(count, options.input, options.output, options.rate, options.load.seed);
  if (!window) return requests;
  const std::size_t places = options.load.concurrency;
  for (std::size_t i = 0; i < std::min(places, count); ++i) {
    const auto part = static_cast<std::int64_t>(i + 1);
    requests[i].output =
        std::max<std::int64_t>(1, options.output * part / static_cast<std::int64_t>(places));
  }
  return requests;
}

std::vector<server::LoadRequest> planned(const LoadBenchOptions& options) {
  if (options.trace.empty()) return uniform(options);
  std::vector<server::LoadRequest> requests = server::read_trace(options.trace, options.prompts);
  for (server::LoadRequest& request : requests) {
    if (options.most_input > 0) request.input = std::min(request.input, options.most_input);
    if (options.most_output > 0) request.output = std::min(request.output, options.most_output);
  }
  return requests;
}

void bench_serve(const LoadBenchOptions& options, Context& context) {
  server::LoadOptions load = options.load;
  if (const char* key = std::getenv("NIBBLE_API_KEY"); key != nullptr && load.api_key.empty()) {
    load.api_key = key;
  }
  const std::vector<server::LoadRequest> requests = planned(options);
  const server::LoadRun run = server::run_load(requests, load, context.progress());
  const server::LoadGoal goal = {1e-3 * options.goal_ms.first_token,
                                 1e-3 * options.goal_ms.per_token,
                                 1e-3 * options.goal_ms.end_to_end};
  const server::LoadReport report = server::load_report(run, goal);
  context.emit(to_json(report), to_text(report));
  if (report.completed == 0) {
    fail(ErrorKind::kDisk, "bench serve: no request succeeded; the first error: {}",
         report.errors.begin()->first);
  }
}

void add_shape_options(CLI::App* command, LoadBenchOptions& options) {
  auto* trace = command->add_option("--trace", options.trace,
                                    "Replay a trace: Azure's CSV or Mooncake's JSON lines");
  command->add_option("--num-prompts", options.prompts,
                      "Requests (default: 100, with a window as many as it takes, or the whole "
                      "trace)");
  command->add_option("--input-len", options.input, "Tokens of each prompt")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->excludes(trace);
  command->add_option("--output-len", options.output, "Tokens of each answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->excludes(trace);
  command
      ->add_option("--request-rate", options.rate,
                   "Requests a second, arriving by chance (default: all at once)")
      ->check(CLI::NonNegativeNumber)
      ->excludes(trace);
  command->add_option("--max-input-len", options.most_input, "Cut the trace's prompts to so many");
  command->add_option("--max-output-len", options.most_output,
                      "Cut the trace's answers to so many");
  command
      ->add_option("--time-scale", options.load.time_scale, "Replay arrivals so many times as fast")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

}  // namespace

void add_bench_serve(CLI::App* bench, Context& context) {
  CLI::App* command =
      bench->add_subcommand("serve", "An OpenAI-compatible server, over HTTP, under load");
  auto options = add_command<LoadBenchOptions>(command, context, bench_serve);
  server::LoadOptions& load = options->load;
  command->add_option("--url", load.url, "Such as http://127.0.0.1:8000")->required();
  command->add_option("--model-name", load.model, "Model to ask for (default: the first listed)");
  command->add_option("--api-key", load.api_key, "Key to send (also NIBBLE_API_KEY)");
  add_shape_options(command, *options);
  command->add_option("--concurrency", load.concurrency,
                      "Requests under way at most (default: no limit)");
  command
      ->add_option("--window", load.window_seconds,
                   "Seconds to measure once all places are taken (needs --concurrency), with the "
                   "first requests at all ages; then the run ends")
      ->check(CLI::PositiveNumber);
  command->add_option("--vocab", load.vocab, "Prompts are random tokens below this")
      ->check(CLI::Range(101, 1 << 24))
      ->capture_default_str();
  command->add_option("--seed", load.seed, "Of prompts and arrivals")->capture_default_str();
  command->add_option("--temperature", load.temperature, "0 is greedy")->capture_default_str();
  command->add_option("--timeout", load.timeout_seconds, "Seconds for one request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--goal-ttft-ms", options->goal_ms.first_token,
                      "A good request has its first token after so long at most");
  command->add_option("--goal-tpot-ms", options->goal_ms.per_token,
                      "... and each other token after so long on average");
  command->add_option("--goal-e2e-ms", options->goal_ms.end_to_end, "... and ends after so long");
}

}  // namespace nibble::cli
