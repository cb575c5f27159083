#include "hub/pull.h"

#include "cli/command.h"
#include "cli/terminal.h"

namespace nibble::cli {
namespace {

struct PullArguments {
  std::string model;
  std::vector<std::string> include;
  std::string cache;
  int jobs = 4;
};

void pull(const PullArguments& arguments, Context& context) {
  const hub::RepositoryName repository = hub::parse_repository_name(arguments.model);
  hub::PullOptions options = hub::pull_options_from_environment();
  options.include = arguments.include;
  options.jobs = arguments.jobs;
  if (!arguments.cache.empty()) options.cache = arguments.cache;
  const hub::PullReport report = hub::pull(repository, options, context.progress());
  context.emit({{"model", repository.name},
                {"revision", repository.revision},
                {"commit", report.commit},
                {"path", report.snapshot.string()},
                {"files", report.files},
                {"fetched", report.fetched},
                {"bytes", report.bytes}},
               fmt::format("{}\n{} files, {}; {} of them were fetched, the others were there\n",
                           report.snapshot.string(), report.files,
                           format_bytes(static_cast<double>(report.bytes)), report.fetched));
}

}  // namespace

void add_pull(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("pull", "Fetch a model from the Hugging Face hub, or go on fetching it");
  auto options = add_command<PullArguments>(command, context, pull);
  command->add_option("model", options->model, "ORG/MODEL or ORG/MODEL:REVISION")->required();
  command->add_option(
      "--include", options->include,
      "Files to fetch, as patterns with * and ? ('*.safetensors'); all if left out");
  command->add_option("--cache-dir", options->cache,
                      "Folder of all models; HF_HUB_CACHE, or hub in HF_HOME, if left out");
  command->add_option("--jobs", options->jobs, "Files at a time")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->footer(
      "HF_TOKEN is sent to the hub, and to nobody whom the hub names; HF_ENDPOINT is a mirror to "
      "ask instead. The path that is printed is what the other commands take.");
}

}  // namespace nibble::cli
