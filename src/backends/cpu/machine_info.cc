// MachineInfo from /proc and /sys; what a file does not say stays empty.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

#include "backends/cpu/cpu_features.h"
#include "backends/cpu/levels.h"
#include "backends/cpu/probe.h"
#include "base/memory.h"
#include "base/topology.h"

namespace nibble::cpu {
namespace {

namespace fs = std::filesystem;

std::string trimmed(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

// The value of the first line "key : value".
std::string field(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (colon != std::string::npos && trimmed(line.substr(0, colon)) == key) {
      return trimmed(line.substr(colon + 1));
    }
  }
  return "";
}

std::vector<std::string> isa_flags() {
  const DeviceCaps caps = detect_caps();
  std::vector<std::string> flags;
  for (auto level = std::rbegin(kIsas); level != std::rend(kIsas); ++level) {
    if (*level > CpuIsa::kGeneric && *level <= caps.isa) flags.emplace_back(to_string(*level));
  }
  if (caps.avx512_vnni) flags.emplace_back("avx512_vnni");
  if (caps.avx512_bf16) flags.emplace_back("avx512_bf16");
  if (caps.neon_dotprod) flags.emplace_back("dotprod");
  if (caps.neon_i8mm) flags.emplace_back("i8mm");
  if (caps.neon_bf16) flags.emplace_back("bf16");
  return flags;
}

std::vector<std::string> nvidia_gpus() {
  std::vector<std::string> models;
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator("/proc/driver/nvidia/gpus", missing)) {
    models.push_back(field(entry.path() / "information", "Model"));
  }
  std::sort(models.begin(), models.end());
  return models;
}

}  // namespace

MachineInfo machine_info() {
  MachineInfo info;
  info.cpu_model = field("/proc/cpuinfo", "model name");
  info.flags = isa_flags();
  info.processors = static_cast<int>(std::thread::hardware_concurrency());
  const Topology topology = read_topology();
  info.cores = topology.cores;
  info.numa_nodes = static_cast<int>(topology.nodes.size());
  std::istringstream(field("/proc/meminfo", "MemTotal")) >> info.memory_bytes;  // in KiB
  info.memory_bytes *= 1024;
  info.available_bytes = available_memory_bytes();
  info.gpus = nvidia_gpus();
  return info;
}

}  // namespace nibble::cpu
