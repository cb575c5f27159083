#include "checkpoint/imatrix.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "cli/command.h"
#include "quantize/imatrix_pass.h"
#include "quantize/texts.h"
#include "runtime/session.h"

namespace nibble::cli {
namespace {

struct ImatrixArguments {
  std::string model;
  std::string output;
  std::string text;
  std::int64_t tokens = 65536;
  std::int64_t context = 512;
};

void measure(const ImatrixArguments& arguments, Context& context) {
  if (std::filesystem::exists(arguments.output)) {
    fail(ErrorKind::kUsage, "{}: exists already; remove it or choose another name",
         arguments.output);
  }
  context.exact = true;  // activations as they are
  const auto checkpoint = open_checkpoint(arguments.model);
  context.say_notes(*checkpoint);
  const auto backend = context.make_cpu_backend("imatrix");
  auto ids = require_tokenizer(*checkpoint)
                 ->encode(arguments.text.empty() ? std::string(bundled_calibration_text())
                                                 : read_text_file(arguments.text));
  if (static_cast<std::int64_t>(ids.size()) > arguments.tokens) {
    ids.resize(static_cast<std::size_t>(arguments.tokens));
  }
  Imatrix imatrix =
      measure_imatrix(*checkpoint, *backend, ids, arguments.context, context.progress());
  imatrix.source.datasets = {arguments.text.empty() ? "nibble's calibration text" : arguments.text};
  write_imatrix(imatrix, arguments.output);
  const std::int64_t tokens =
      std::int64_t{imatrix.source.chunks} * std::int64_t{imatrix.source.chunk_size};
  context.emit({{"entries", imatrix.entries().size()},
                {"chunks", imatrix.source.chunks},
                {"context", imatrix.source.chunk_size},
                {"tokens", tokens}},
               fmt::format("{}: {} weights, measured on {} tokens\n", arguments.output,
                           imatrix.entries().size(), tokens));
}

}  // namespace

void add_imatrix(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "imatrix", "How much the columns of weights matter on a text, for GGUF files");
  auto options = add_command<ImatrixArguments>(command, context, measure);
  command->add_option("model", options->model, "Checkpoint")->required();
  command->add_option("output", options->output, "File to write; the old form if it ends in .dat")
      ->required();
  command->add_option("--text", options->text, "Text to measure on (the bundled one)");
  command->add_option("--tokens", options->tokens, "Tokens of the text to use")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--context", options->context, "Tokens of a window")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
}

}  // namespace nibble::cli
