#include "backends/backend.h"

#include <algorithm>
#include <cstdlib>

#include "backends/cpu/cpu_features.h"
#include "backends/cpu/impls.h"
#include "backends/cuda.h"
#include "backends/dispatch.h"

namespace nibble {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

Codec Backend::codec() { return {&cpu::spans_of(cpu::detect_caps()), &pool()}; }

void Backend::run_chain(std::span<const ChainLink> links) {
  for (const ChainLink& link : links) {
    if (const auto* const calls = std::get_if<std::span<const LinearArgs>>(&link)) {
      run_together(*calls);
    } else if (const auto* const norm = std::get_if<NormArgs>(&link)) {
      run(*norm);
    } else if (const auto* const attention = std::get_if<AttentionArgs>(&link)) {
      run(*attention);
    } else {
      run(std::get<ActivationArgs>(link));
    }
  }
}

BackendOptions BackendOptions::from_environment() {
  BackendOptions options;
  options.isa = environment("NIBBLE_ISA");
  options.force = environment("NIBBLE_FORCE");
  const std::string verbose = environment("NIBBLE_VERBOSE");
  if (!verbose.empty() && verbose != "dispatch") {
    fail(ErrorKind::kUsage, "NIBBLE_VERBOSE: '{}' is unknown; use dispatch", verbose);
  }
  options.verbose_dispatch = !verbose.empty();
  return options;
}

std::vector<ForcedImpl> parse_force(std::string_view text) {
  std::vector<ForcedImpl> entries;
  while (!text.empty()) {
    const std::string_view entry = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), entry.size() + 1));
    const std::size_t colon = entry.find(':');
    if (colon == std::string_view::npos || colon == 0 || colon + 1 == entry.size()) {
      fail(ErrorKind::kUsage, "NIBBLE_FORCE: '{}' is not op:implementation", entry);
    }
    ForcedImpl forced{std::string(entry.substr(0, colon)), std::string(entry.substr(colon + 1))};
    for (const ForcedImpl& other : entries) {
      if (other.op == forced.op)
        fail(ErrorKind::kUsage, "NIBBLE_FORCE: {} occurs twice", forced.op);
    }
    entries.push_back(std::move(forced));
  }
  return entries;
}

std::unique_ptr<Backend> make_backend(const std::string& device, const BackendOptions& options) {
  if (device == "cpu") return make_cpu_backend(options);
  if (device == "auto") {
    return cuda_available() ? make_cuda_backend(0, options) : make_cpu_backend(options);
  }
  if (device == "cuda") return make_cuda_backend(0, options);
  if (device.starts_with("cuda:") && device.size() > 5 && device.size() <= 8 &&
      device.find_first_not_of("0123456789", 5) == std::string::npos) {
    return make_cuda_backend(std::stoi(device.substr(5)), options);
  }
  fail(ErrorKind::kUsage, "device '{}' is unknown; use auto, cpu, cuda or cuda:N", device);
}

}  // namespace nibble
