#include "cli/app.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <new>
#include <ostream>

#include "base/error.h"
#include "cli/command.h"

// Programs of fewer commands have a list of their own.
#ifndef NIBBLE_COMMANDS
#define NIBBLE_COMMANDS "cli/commands.def"
#endif

namespace nibble::cli {
namespace {

constexpr const char* kAbout = "nibble: quantize a language model, prove what it lost, run it.";

int report(std::ostream& err, ErrorKind kind, std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');  // one line, whatever the cause wrote
  err << "nibble: error: [" << to_string(kind) << "] " << message << std::endl;
  return exit_status(kind);
}

void add_global_options(CLI::App& app, Context& context) {
  app.add_flag("--json", context.json,
               "Print one JSON object on stdout; everything else on stderr");
  app.add_flag("--quiet", context.quiet, "No progress and no notices");
  app.add_flag("--exact", context.exact,
               "Float32 activations: no kernel that rounds them to bytes or bf16");
  app.add_option("--threads", context.threads, "Worker threads (default: one a physical core)")
      ->check(CLI::Range(1, 4096));
  app.add_flag("--repack-cache", context.repack_cache,
               "Keep weights as the CPU's kernels want them in a file beside the checkpoint, and "
               "map it at the next start");
  app.add_option("--repack-cache-dir", context.repack_cache_dir,
                 "The same, with the file in this directory");
  app.add_option("--device", context.device, "auto, cpu or cuda[:n]")->capture_default_str();
  app.add_option("--gpu-memory-bytes", context.gpu_memory_bytes,
                 "Use at most so much of the card's memory");
}

}  // namespace

int run_app(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err) {
  Context context(out, err);
  CLI::App app(kAbout, "nibble");
  app.set_version_flag("--version", "nibble " NIBBLE_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  add_global_options(app, context);
#define NIBBLE_COMMAND(name) add_##name(app, context);
#include NIBBLE_COMMANDS
#undef NIBBLE_COMMAND

  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(reversed);
    context.action();
    out.flush();
    if (!out) fail(ErrorKind::kDisk, "cannot write the result to standard output");
    return 0;
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {  // --help, --version
      app.exit(e, out, err);
      return 0;
    }
    return report(err, ErrorKind::kUsage, std::string(e.what()) + "; see nibble --help");
  } catch (const Error& e) {
    return report(err, e.kind(), e.what());
  } catch (const std::bad_alloc&) {
    return report(err, ErrorKind::kMemory, "out of memory; use a smaller model, context or batch");
  } catch (const std::exception& e) {
    return report(err, ErrorKind::kInternal, std::string(e.what()) + "; please report this");
  }
}

}  // namespace nibble::cli
