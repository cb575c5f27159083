#include <fmt/format.h>
#include <fmt/ranges.h>

#include "backends/cpu/probe.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/terminal.h"

namespace nibble::cli {
namespace {

struct DoctorOptions {
  bool no_measure = false;
};

Json rate_json(const cpu::Rate& rate) {
  return {{"one_thread", rate.one_thread}, {"all_threads", rate.all_threads}};
}

// What would make this machine faster or is not there, in words.
std::vector<std::string> missing(const cpu::MachineInfo& info, const DeviceCaps& caps) {
  std::vector<std::string> lines;
  if (caps.isa == CpuIsa::kGeneric)
    lines.push_back("neither AVX2 nor NEON: kernels run on the generic path");
  if (caps.isa == CpuIsa::kAvx2) lines.push_back("no AVX-512: kernels run on the AVX2 path");
  if (info.gpus.empty()) {
    lines.push_back("no NVIDIA GPU visible");
  } else {
    lines.push_back("this build has no CUDA backend: the GPUs are not used");
  }
  return lines;
}

Json machine_json(const cpu::MachineInfo& info, const DeviceCaps& caps, int threads) {
  return {{"cpu", info.cpu_model},
          {"isa", to_string(caps.isa)},
          {"flags", info.flags},
          {"processors", info.processors},
          {"cores", info.cores},
          {"threads", threads},
          {"numa_nodes", info.numa_nodes},
          {"memory_bytes", info.memory_bytes},
          {"available_bytes", info.available_bytes},
          {"gpus", info.gpus}};
}

std::string limits_text(const cpu::MachineLimits& limits) {
  std::vector<std::vector<std::string>> rows = {{"measured", "one thread", "all threads", "unit"}};
  const auto add = [&rows](const std::string& name, const cpu::Rate& rate, const char* unit) {
    if (rate.all_threads > 0) {
      rows.push_back({name, fmt::format("{:.1f}", rate.one_thread / 1e9),
                      fmt::format("{:.1f}", rate.all_threads / 1e9), unit});
    }
  };
  add("memory read", limits.read_bandwidth, "GB/s");
  for (const cpu::ArithmeticPeak& peak : limits.peaks) {
    add(fmt::format("{} {}", to_string(peak.isa), to_string(peak.arithmetic)), peak.rate, "GOP/s");
  }
  return format_table(rows);
}

void doctor(const DoctorOptions& options, Context& context) {
  const auto backend = context.make_cpu_backend("doctor");
  const DeviceCaps& caps = backend->caps();
  const cpu::MachineInfo info = cpu::machine_info();
  Json json = machine_json(info, caps, backend->pool().threads());
  json["missing"] = missing(info, caps);
  std::string text = fmt::format(
      "{}\n{} cores, {} processors, {} NUMA node(s), {} threads used; kernels: {} ({})\n"
      "memory {} ({} free)\n",
      info.cpu_model, info.cores, info.processors, info.numa_nodes, backend->pool().threads(),
      to_string(caps.isa), fmt::join(info.flags, " "),
      format_bytes(static_cast<double>(info.memory_bytes)),
      format_bytes(static_cast<double>(info.available_bytes)));
  for (const std::string& gpu : info.gpus) text += "GPU " + gpu + '\n';
  for (const std::string& line : missing(info, caps)) text += "note: " + line + '\n';
  if (!options.no_measure) {
    const cpu::MachineLimits limits = cpu::measure_machine(backend->pool(), caps);
    json["read_bytes_per_second"] = rate_json(limits.read_bandwidth);
    json["peaks"] = Json::array();
    for (const cpu::ArithmeticPeak& peak : limits.peaks) {
      json["peaks"].push_back({{"isa", to_string(peak.isa)},
                               {"arithmetic", to_string(peak.arithmetic)},
                               {"operations_per_second", rate_json(peak.rate)}});
    }
    text += '\n' + limits_text(limits);
  }
  context.emit(json, text);
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("doctor", "What this machine has, reaches and lacks");
  auto options = add_command<DoctorOptions>(command, context, doctor);
  command->add_flag("--no-measure", options->no_measure, "Skip measuring (about two seconds)");
}

}  // namespace nibble::cli
