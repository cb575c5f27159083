// The processors that this process may use, and which memory is near them.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

namespace nibble {

// One memory node (a socket, or a part of one).
struct NumaNode {
  std::vector<int> processors;  // those that this process may use, ascending
  int cores = 0;                // physical ones among them: hyper-threads share one
};

struct Topology {
  std::vector<NumaNode> nodes;  // at least one; nodes without a processor for us are left out
  // Physical cores, or fewer when the process's control group is given less time than they have: a
  // thread more than that would only wait for the next period.
  int cores = 1;
};

// Reads /sys and /proc below `root`. allowed: the processors to consider; by default those of the
// calling thread's affinity mask. Files that are missing or say nothing sensible are passed over:
// every processor is then a core, and all are on one node. Never throws for what a file holds.
Topology read_topology(const std::filesystem::path& root = "/",
                       const std::optional<std::vector<int>>& allowed = std::nullopt);

// read_topology().cores
int available_cores();

// For each of `threads` threads the index of its node: blocks of neighbours, as large as the nodes'
// shares of the cores, starting at node `first`.
std::vector<int> spread_threads(const std::vector<NumaNode>& nodes, int threads, int first);

}  // namespace nibble
