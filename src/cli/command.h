// What the commands share: global options, output, and the registry (commands.def).
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>

#include "backends/backend.h"
#include "base/json.h"
#include "base/log.h"
#include "checkpoint/packed_cache.h"
#include "runtime/session.h"

namespace nibble::cli {

// Global options and where output goes. One object lives for the whole command.
class Context {
 public:
  Context(std::ostream& out, std::ostream& err) : out_(out), err_(err) {}

  bool json = false;
  bool quiet = false;
  int threads = 0;
  std::string device = "auto";
  bool exact = false;
  bool repack_cache = false;         // keep repacked weights beside the checkpoint
  std::string repack_cache_dir;      // or in this directory
  std::size_t gpu_memory_bytes = 0;  // as BackendOptions

  // Set by the callback of the chosen subcommand, run after parsing.
  std::function<void()> action;

  // What the user asked for, with warnings going to log().
  BackendOptions backend_options() const;
  // The device that the user asked for.
  std::unique_ptr<Backend> make_backend() const;
  // The same with NIBBLE_FORCE replaced.
  std::unique_ptr<Backend> make_backend(const std::string& force) const;
  // The CPU, for a command that runs nowhere else; kUnsupported when the user asked for a GPU.
  std::unique_ptr<Backend> make_cpu_backend(std::string_view command) const;

  // open_session(), with the notes of the checkpoint going to log().
  Session open(const std::filesystem::path& path, Backend& backend,
               std::optional<KvFormat> kv_type = std::nullopt, const ModelFormat& rounding = {},
               const RoomRule& besides = {}) const;
  void say_notes(const Checkpoint& checkpoint) const;

  // load(), a function that makes a model of the checkpoint, with the cache of repacked weights
  // that the user asked for, if any.
  template <class Load>
  auto with_repack_cache(const std::filesystem::path& checkpoint, Backend& backend,
                         const Load& load) const {
    const std::shared_ptr<PackedCache> cache = open_repack_cache(checkpoint);
    backend.use_packed_store(cache);
    auto result = load();
    backend.use_packed_store(nullptr);
    if (cache != nullptr) cache->save();
    return result;
  }

  LogSink log() const;            // lines on stderr; info is dropped by --quiet, warnings are not
  ProgressSink progress() const;  // a bar with ETA on a terminal, one line a step elsewhere

  // The result of a command: one JSON object with --json, the text otherwise.
  void emit(const Json& result, const std::string& text) const;

  std::ostream& out() const { return out_; }
  std::ostream& err() const { return err_; }

 private:
  std::shared_ptr<PackedCache> open_repack_cache(const std::filesystem::path& checkpoint) const;

  std::ostream& out_;
  std::ostream& err_;
};

// Adds a subcommand whose options live in an Options object and whose work is `body(options,
// context)`.
template <class Options, class Body>
std::shared_ptr<Options> add_command(CLI::App* command, Context& context, Body body) {
  auto options = std::make_shared<Options>();
  command->callback([command, options, &context, body] {
    if (!command->get_subcommands().empty()) return;  // theirs was set just before
    context.action = [options, &context, body] { body(*options, context); };
  });
  return options;
}

// --kv-cache-dtype: a name for parse_kv_format(), or "auto", for which that gives nothing and the
// help says `automatic`.
void add_kv_option(CLI::App* command, std::string& value, const std::string& automatic);

#define NIBBLE_COMMAND(name) void add_##name(CLI::App& app, Context& context);
#include "cli/commands.def"
#undef NIBBLE_COMMAND

}  // namespace nibble::cli
