#include <algorithm>
#include <chrono>
#include <iterator>
#include <memory>
#include <ostream>

#include "cli/command.h"
#include "cli/terminal.h"

namespace nibble::cli {

BackendOptions Context::backend_options() const {
  BackendOptions options = BackendOptions::from_environment();
  if (threads > 0) options.threads = threads;
  options.exact = exact;
  options.gpu_memory_bytes = gpu_memory_bytes;
  options.log = log();
  return options;
}

std::unique_ptr<Backend> Context::make_backend() const {
  return nibble::make_backend(device, backend_options());
}

std::unique_ptr<Backend> Context::make_backend(const std::string& force) const {
  BackendOptions options = backend_options();
  options.force = force;
  return nibble::make_backend(device, options);
}

std::unique_ptr<Backend> Context::make_cpu_backend(std::string_view command) const {
  if (device != "auto" && device != "cpu") {
    fail(ErrorKind::kUnsupported, "{} runs on the CPU only; leave --device {} away", command,
         device);
  }
  return nibble::make_cpu_backend(backend_options());
}

Session Context::open(const std::filesystem::path& path, Backend& backend,
                      std::optional<KvFormat> kv_type, const ModelFormat& rounding,
                      const RoomRule& besides) const {
  if ((repack_cache || !repack_cache_dir.empty()) &&
      (rounding.weights != nullptr || rounding.embeddings != nullptr)) {
    fail(ErrorKind::kUsage,
         "the cache of repacked weights holds those of the checkpoint, not "
         "rounded ones; leave --repack-cache away");
  }
  Session session = with_repack_cache(
      path, backend, [&] { return open_session(path, backend, kv_type, rounding, besides); });
  say_notes(*session.checkpoint);
  return session;
}

std::shared_ptr<PackedCache> Context::open_repack_cache(
    const std::filesystem::path& checkpoint) const {
  if (!repack_cache && repack_cache_dir.empty()) return nullptr;
  // Without a checkpoint there is nothing to cache, and opening it says so better.
  if (!std::filesystem::exists(checkpoint)) return nullptr;
  return std::make_shared<PackedCache>(packed_cache_path(checkpoint, repack_cache_dir),
                                       checkpoint_identity(checkpoint), log());
}

void Context::say_notes(const Checkpoint& checkpoint) const {
  for (const std::string& note : checkpoint.notes()) log()(LogLevel::kWarning, note);
}

LogSink Context::log() const {
  return [this](LogLevel level, const std::string& message) {
    if (quiet && level == LogLevel::kInfo) return;
    err_ << "nibble: " << (level == LogLevel::kWarning ? "warning: " : "") << message << '\n';
  };
}

ProgressSink Context::progress() const {
  if (quiet) return {};
  return [display = std::make_shared<ProgressDisplay>(err_)](
             const std::string& step, std::int64_t done, std::int64_t total) {
    display->update(step, done, total);
  };
}

void add_kv_option(CLI::App* command, std::string& value, const std::string& automatic) {
  std::vector<std::string> names = {"auto"};
  std::ranges::copy(kv_format_names(), std::back_inserter(names));
  value = names.front();
  command
      ->add_option("--kv-cache-dtype,--kv", value,
                   "How keys and values are stored (auto: " + automatic + ")")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
}

void Context::emit(const Json& result, const std::string& text) const {
  if (json) {
    // Text of the model may hold any bytes; JSON may not.
    out_ << result.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
  } else {
    out_ << text;
    if (!text.empty() && text.back() != '\n') out_ << '\n';
  }
}

}  // namespace nibble::cli
