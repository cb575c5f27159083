#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "cli/command.h"
#include "runtime/session.h"

namespace nibble::cli {
namespace {

struct TokenizeOptions {
  std::string model;
  std::string text;
  std::string file;
  bool no_special = false;
};

std::string escaped(const std::string& piece) {
  std::string result;
  for (const char c : piece) {
    if (static_cast<unsigned char>(c) < 0x20) {
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      result += c;
    }
  }
  return result;
}

void tokenize(const TokenizeOptions& options, Context& context) {
  const auto tokenizer = require_tokenizer(options.model);
  const std::string text = options.file.empty() ? options.text : read_text_file(options.file);
  const auto ids = tokenizer->encode(text, {.add_special = !options.no_special});
  Json pieces = Json::array();
  std::string human;
  for (const std::int32_t id : ids) {
    pieces.push_back(tokenizer->piece(id));
    human += fmt::format("{:>8}  {}\n", id, escaped(tokenizer->piece(id)));
  }
  human += fmt::format("{} tokens, {} bytes\n", ids.size(), text.size());
  context.emit({{"ids", ids}, {"pieces", std::move(pieces)}}, human);
}

}  // namespace

void add_tokenize(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("tokenize", "Text to token ids and pieces");
  auto options = add_command<TokenizeOptions>(command, context, tokenize);
  command->add_option("model", options->model, "Checkpoint or tokenizer file")->required();
  auto* text = command->add_option("--text,-t", options->text, "The text");
  auto* file = command->add_option("--file,-f", options->file, "A file that holds the text");
  text->excludes(file);
  command->add_flag("--no-special", options->no_special, "Add no BOS or EOS");
  command->require_option(2, 0);
}

}  // namespace nibble::cli
