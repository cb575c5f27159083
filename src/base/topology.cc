#include "base/topology.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

namespace nibble {
namespace {

namespace fs = std::filesystem;

std::vector<int> affinity() {
  std::vector<int> processors;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) processors.push_back(cpu);
    }
  } else {  // more processors than the set has room for
    const int count = static_cast<int>(std::thread::hardware_concurrency());
    for (int cpu = 0; cpu < std::max(1, count); ++cpu) processors.push_back(cpu);
  }
  return processors;
}

// The members of `processors` in a list like "0-3,8,10-11"; reading ends at what is no list.
std::vector<int> listed(std::istream& list, const std::vector<int>& processors) {
  std::vector<int> members;
  int first;
  while (list >> first) {
    int last = first;
    if (list.peek() == '-') {
      list.get();
      list >> last;
    }
    for (const int cpu : processors) {
      if (first <= cpu && cpu <= last) members.push_back(cpu);
    }
    if (list.get() != ',') break;
  }
  return members;
}

int count_cores(const fs::path& root, const std::vector<int>& processors) {
  std::set<std::pair<int, int>> cores;
  for (const int cpu : processors) {
    const fs::path folder = root / "sys/devices/system/cpu" / ("cpu" + std::to_string(cpu));
    int package = 0;
    int core = cpu;
    std::ifstream(folder / "topology/physical_package_id") >> package;
    if (std::ifstream file(folder / "topology/core_id"); file) file >> core;
    cores.insert({package, core});
  }
  return static_cast<int>(cores.size());
}

std::vector<NumaNode> read_nodes(const fs::path& root, const std::vector<int>& processors) {
  std::vector<std::pair<int, NumaNode>> found;
  std::vector<int> rest = processors;
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator(root / "sys/devices/system/node", missing)) {
    const std::string name = entry.path().filename();
    int id = 0;
    if (!name.starts_with("node") || !(std::istringstream(name.substr(4)) >> id)) continue;
    std::ifstream list(entry.path() / "cpulist");
    std::vector<int> members = listed(list, rest);
    if (members.empty()) continue;
    std::erase_if(rest, [&](int cpu) { return std::ranges::count(members, cpu) > 0; });
    const int cores = count_cores(root, members);
    found.emplace_back(id, NumaNode{std::move(members), cores});
  }
  std::ranges::sort(found, {}, [](const auto& node) { return node.first; });
  std::vector<NumaNode> nodes;
  for (auto& [id, node] : found) nodes.push_back(std::move(node));
  if (nodes.empty() || !rest.empty()) return {{processors, count_cores(root, processors)}};
  return nodes;
}

// Processors' worth of time that one directory of control groups grants: version 2 says it in
// cpu.max ("quota period" or "max period"), version 1 in two files.
double granted(const fs::path& folder) {
  double quota = -1;
  double period = 0;
  if (std::ifstream file(folder / "cpu.max"); file) {
    file >> quota >> period;
  } else {
    std::ifstream(folder / "cpu.cfs_quota_us") >> quota;
    std::ifstream(folder / "cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : HUGE_VAL;
}

// The least that the process's groups and those above them grant.
double granted_to_process(const fs::path& root) {
  double least = HUGE_VAL;
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "number:controllers:/path"
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path mount = root / "sys/fs/cgroup" / controllers;
    fs::path group = fs::path(line.substr(second + 1)).relative_path().lexically_normal();
    while (!group.empty()) {
      least = std::min(least, granted(mount / group));
      group = group.parent_path();
    }
    least = std::min(least, granted(mount));
  }
  return least;
}

}  // namespace

Topology read_topology(const fs::path& root, const std::optional<std::vector<int>>& allowed) {
  Topology topology;
  topology.nodes = read_nodes(root, allowed ? *allowed : affinity());
  int cores = 0;
  for (const NumaNode& node : topology.nodes) cores += node.cores;
  topology.cores =
      std::max(1, static_cast<int>(std::min<double>(cores, std::ceil(granted_to_process(root)))));
  return topology;
}

int available_cores() { return read_topology().cores; }

std::vector<int> spread_threads(const std::vector<NumaNode>& nodes, int threads, int first) {
  std::int64_t all = 0;
  for (const NumaNode& node : nodes) all += node.cores;
  std::vector<int> result;
  int node = first;
  std::int64_t before =
      nodes[static_cast<std::size_t>(first)].cores;  // cores up to this node's end
  for (std::int64_t i = 0; i < threads; ++i) {
    // The thread's middle on the line of all cores.
    while ((2 * i + 1) * all > 2 * threads * before) {
      node = (node + 1) % static_cast<int>(nodes.size());
      before += nodes[static_cast<std::size_t>(node)].cores;
    }
    result.push_back(node);
  }
  return result;
}

}  // namespace nibble
