#include "base/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;

// A root directory with files of our making.
class TopologyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("nibble_topology_" + std::to_string(::getpid()));
    fs::remove_all(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  void add_cpu(int cpu, int package, int core) {
    const std::string folder = "sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    write(folder + "physical_package_id", std::to_string(package) + "\n");
    write(folder + "core_id", std::to_string(core) + "\n");
  }
  void add_node(int node, const std::string& list) {
    write("sys/devices/system/node/node" + std::to_string(node) + "/cpulist", list + "\n");
  }
  // Two sockets of two cores; processors 4 ... 7 are the second threads of 0 ... 3.
  void add_two_sockets() {
    for (int cpu = 0; cpu < 8; ++cpu) add_cpu(cpu, cpu / 2 % 2, cpu % 2);
    add_node(0, "0-1,4-5");
    add_node(1, "2-3,6-7");
    write("sys/devices/system/node/possible", "0-1\n");
  }
  Topology read(const std::vector<int>& allowed) const { return read_topology(root_, allowed); }

  fs::path root_;
};

TEST_F(TopologyTest, FindsNodesAndPhysicalCores) {
  add_two_sockets();
  const Topology all = read({0, 1, 2, 3, 4, 5, 6, 7});
  EXPECT_EQ(all.cores, 4);
  ASSERT_EQ(all.nodes.size(), 2u);
  EXPECT_THAT(all.nodes[0].processors, ElementsAre(0, 1, 4, 5));
  EXPECT_THAT(all.nodes[1].processors, ElementsAre(2, 3, 6, 7));
  EXPECT_EQ(all.nodes[0].cores, 2);
  EXPECT_EQ(all.nodes[1].cores, 2);
}

TEST_F(TopologyTest, KeepsToTheAllowedProcessors) {
  add_two_sockets();
  const Topology some = read({2, 3, 6});
  EXPECT_EQ(some.cores, 2);
  ASSERT_EQ(some.nodes.size(), 1u);
  EXPECT_THAT(some.nodes[0].processors, ElementsAre(2, 3, 6));
}

TEST_F(TopologyTest, NodesAreInTheOrderOfTheirNumbers) {
  for (int node = 0; node < 12; ++node) add_node(node, std::to_string(node));
  const Topology topology = read({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  ASSERT_EQ(topology.nodes.size(), 12u);
  for (int node = 0; node < 12; ++node) {
    EXPECT_THAT(topology.nodes[static_cast<std::size_t>(node)].processors, ElementsAre(node));
  }
}

TEST_F(TopologyTest, FilesThatAreMissingOrWrong) {
  EXPECT_EQ(read({0, 1, 2}).cores, 3);
  EXPECT_EQ(read({0, 1, 2}).nodes.size(), 1u);
  EXPECT_EQ(read({}).cores, 1);
  add_node(0, "0-1");  // says nothing of processor 2
  EXPECT_THAT(read({0, 1, 2}).nodes.at(0).processors, ElementsAre(0, 1, 2));
  add_node(0, "0-99999999999999999999");
  add_node(1, "x,-,5-");
  add_node(2, "0-2");  // overlaps
  EXPECT_EQ(read({0, 1, 2}).cores, 3);
  write("proc/self/cgroup", "0\n0::\n:::::\n0::/../../..\n");
  write("sys/fs/cgroup/cpu.max", "-5 zero\n");
  EXPECT_EQ(read({0, 1, 2}).cores, 3);
}

TEST_F(TopologyTest, ControlGroupsLimitTheCores) {
  for (int cpu = 0; cpu < 8; ++cpu) add_cpu(cpu, 0, cpu);
  const std::vector<int> allowed = {0, 1, 2, 3, 4, 5, 6, 7};
  write("proc/self/cgroup", "0::/jobs/one\n");
  write("sys/fs/cgroup/jobs/one/cpu.max", "max 100000\n");
  EXPECT_EQ(read(allowed).cores, 8);
  write("sys/fs/cgroup/jobs/cpu.max", "250000 100000\n");
  EXPECT_EQ(read(allowed).cores, 3);
  write("sys/fs/cgroup/jobs/one/cpu.max", "20000 100000\n");
  EXPECT_EQ(read(allowed).cores, 1);
}

TEST_F(TopologyTest, ControlGroupsOfVersionOneLimitTheCores) {
  for (int cpu = 0; cpu < 8; ++cpu) add_cpu(cpu, 0, cpu);
  write("proc/self/cgroup", "3:cpuset:/\n1:cpu,cpuacct:/box\n");
  write("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "400000\n");
  write("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(read({0, 1, 2, 3, 4, 5, 6, 7}).cores, 4);
}

TEST(SpreadThreadsTest, BlocksInProportionToTheCores) {
  const std::vector<NumaNode> even = {{{}, 4}, {{}, 4}};
  EXPECT_THAT(spread_threads(even, 4, 0), ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(spread_threads(even, 4, 1), ElementsAre(1, 1, 0, 0));
  EXPECT_THAT(spread_threads(even, 1, 1), ElementsAre(1));
  EXPECT_THAT(spread_threads({{{}, 6}, {{}, 2}}, 4, 0), ElementsAre(0, 0, 0, 1));
  EXPECT_THAT(spread_threads({{{}, 1}, {{}, 1}, {{}, 1}}, 6, 2), ElementsAre(2, 2, 0, 0, 1, 1));
  EXPECT_THAT(spread_threads({{{}, 2}}, 3, 0), ElementsAre(0, 0, 0));
}

TEST(AvailableCoresTest, IsPositive) { EXPECT_GE(available_cores(), 1); }

}  // namespace
}  // namespace nibble
