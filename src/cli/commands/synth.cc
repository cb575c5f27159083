#include "checkpoint/synth.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/command.h"

namespace nibble::cli {
namespace {

struct SynthOptions {
  std::string directory;
  std::string shape;
  std::uint64_t seed = 0;
  std::uint64_t max_shard_bytes = 2'000'000'000;
};

void synth(const SynthOptions& options, Context& context) {
  ThreadPool pool(context.threads);
  synthesize(options.directory, options.shape, options.seed, pool, context.progress(),
             options.max_shard_bytes);
  context.emit({{"directory", options.directory}, {"shape", options.shape}, {"seed", options.seed}},
               fmt::format("{}: a random {} checkpoint\n", options.directory, options.shape));
}

}  // namespace

void add_synth(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("synth", "Write a random checkpoint of a real model's shape");
  auto options = add_command<SynthOptions>(command, context, synth);
  std::vector<std::string> names;
  for (const SynthShape& shape : synth_shapes()) names.emplace_back(shape.name);
  command->add_option("directory", options->directory, "Where to write; must not exist")
      ->required();
  command->add_option("--shape", options->shape, fmt::format("One of {}", fmt::join(names, ", ")))
      ->required();
  command->add_option("--seed", options->seed, "Same seed, same bytes")->capture_default_str();
  command->add_option("--max-shard-bytes", options->max_shard_bytes, "Largest file")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

}  // namespace nibble::cli
