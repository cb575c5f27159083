#include "backends/cuda/queue.h"

#include <algorithm>
#include <cstring>

namespace nibble {
namespace {

using cuda::check;

constexpr std::size_t kAlign = 16;
constexpr std::size_t kFirstData = std::size_t{1} << 20;
constexpr std::size_t kFirstWorkspace = std::size_t{64} << 20;

std::size_t round_up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit * unit; }

// Makes every dependency of a recorded step one on the end of the kernel ahead.
cudaError_t separate_kernels(cudaGraph_t graph) {
  std::size_t count = 0;
  cudaError_t status = cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &count);
  if (status != cudaSuccess || count == 0) return status;
  std::vector<cudaGraphNode_t> from(count);
  std::vector<cudaGraphNode_t> to(count);
  std::vector<cudaGraphEdgeData> edges(count);
  status = cudaGraphGetEdges(graph, from.data(), to.data(), edges.data(), &count);
  if (status != cudaSuccess) return status;
  status = cudaGraphRemoveDependencies(graph, from.data(), to.data(), edges.data(), count);
  if (status != cudaSuccess) return status;
  return cudaGraphAddDependencies(graph, from.data(), to.data(), nullptr, count);
}

}  // namespace

// The state of a queue within a step.
class DeviceQueue::InStep {
 public:
  InStep(DeviceQueue& queue, bool recording) : queue_(queue) {
    queue_.in_step_ = true;
    queue_.recording_ = recording;
  }
  ~InStep() { queue_.in_step_ = queue_.walking_ = queue_.recording_ = queue_.barriers_ = false; }
  InStep(const InStep&) = delete;
  InStep& operator=(const InStep&) = delete;

 private:
  DeviceQueue& queue_;
};

DeviceQueue::DeviceQueue() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
  for (Staging& staging : stagings_) {
    check(cudaEventCreateWithFlags(&staging.copied, cudaEventDisableTiming), "event");
  }
  for (cudaEvent_t* event : {&begin_, &end_}) check(cudaEventCreate(event), "event");
  grow_data(kFirstData);
  workspace(kFirstWorkspace);
}

DeviceQueue::~DeviceQueue() {
  (void)cudaStreamSynchronize(stream_);
  for (auto& [fingerprint, graph] : graphs_) {
    if (graph.exec != nullptr) (void)cudaGraphExecDestroy(graph.exec);
  }
  for (Staging& staging : stagings_) {
    (void)cudaFreeHost(staging.bytes);
    (void)cudaEventDestroy(staging.copied);
  }
  for (const cudaEvent_t event : {begin_, end_}) (void)cudaEventDestroy(event);
  (void)cudaFree(data_);
  (void)cudaFree(workspace_.data);
  for (const Block& block : own_) (void)cudaFree(block.data);
  (void)cudaStreamDestroy(stream_);
}

void DeviceQueue::run(const std::function<void()>& step, bool record_it) {
  if (in_step_) return step();  // part of a larger one
  const InStep within(*this, record_it);
  try {
    walk(step);
  } catch (const NotRecordable&) {
    // Its ops run one by one, as steps of their own.
    in_step_ = walking_ = recording_ = false;
    return step();
  }
  upload();
  if (record_it) {
    const auto [graph, is_new] = graph_of_walk();
    if (!is_new) {
      record(step, *graph);
      check(cudaGraphLaunch(graph->exec, stream_), "graph");
      return;
    }
    forget_oldest();
  }
  issue(step);
}

void DeviceQueue::issue(const std::function<void()>& step) {
  if (!ends_on_host_) {
    for (const Noted& launch : launches_) {
      check(launch.start(launch.kernel, params_.data() + launch.params, stream_), launch.what);
    }
    return;
  }
  start_puts();
  step();
}

void DeviceQueue::start_puts() {
  data_used_ = 0;
  puts_.clear();
  named_.clear();
}

void DeviceQueue::note(Noted launch, const void* params, std::size_t bytes) {
  launch.params = params_.size();
  params_.resize(launch.params + (bytes + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t));
  std::memcpy(params_.data() + launch.params, params, bytes);
  launches_.push_back(launch);
}

std::optional<double> DeviceQueue::time(const std::function<void()>& step, int plays,
                                        bool barriers) {
  NIBBLE_CHECK(!in_step_ && plays > 0);
  const InStep within(*this, true);
  barriers_ = barriers;
  try {
    walk(step);
  } catch (const NotRecordable&) {
    return std::nullopt;
  }
  upload();
  Graph& graph = *graph_of_walk().first;
  forget_oldest();
  if (graph.exec == nullptr) issue(step);  // what is made at a first launch is no part of a record
  record(step, graph);
  // The device plays the first while it is told of the others: none waits for the host.
  check(cudaGraphLaunch(graph.exec, stream_), "graph");
  check(cudaEventRecord(begin_, stream_), "event");
  for (int i = 0; i < plays; ++i) check(cudaGraphLaunch(graph.exec, stream_), "graph");
  check(cudaEventRecord(end_, stream_), "event");
  check(cudaEventSynchronize(end_), "device");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begin_, end_), "event");
  return 1e-3 * static_cast<double>(milliseconds) / plays;
}

std::pair<DeviceQueue::Graph*, bool> DeviceQueue::graph_of_walk() {
  const auto [entry, is_new] = graphs_.try_emplace(fingerprint_);
  entry->second.used = ++steps_;
  return {&entry->second, is_new};
}

void DeviceQueue::walk(const std::function<void()>& step) {
  do {
    moved_ = false;
    fingerprint_ = kNoValues;
    if (barriers_) mix(1);
    start_puts();
    launches_.clear();
    params_.clear();
    ends_on_host_ = false;
    staging_ = (staging_ + 1) % kStagings;
    check(cudaEventSynchronize(stagings_[staging_].copied), "device");
    walking_ = true;
    step();
    walking_ = false;
  } while (moved_);
}

void DeviceQueue::upload() {
  if (data_used_ > 0) {
    check(cudaMemcpyAsync(data_, stagings_[staging_].bytes, data_used_, cudaMemcpyHostToDevice,
                          stream_),
          "copy to the card");
  }
  check(cudaEventRecord(stagings_[staging_].copied, stream_), "event");
}

void DeviceQueue::record(const std::function<void()>& step, Graph& graph) {
  if (graph.exec != nullptr) return;
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "graph");
  cudaGraph_t captured = nullptr;
  try {
    issue(step);
  } catch (...) {
    (void)cudaStreamEndCapture(stream_, &captured);
    if (captured != nullptr) (void)cudaGraphDestroy(captured);
    throw;
  }
  check(cudaStreamEndCapture(stream_, &captured), "graph");
  cudaError_t status = barriers_ ? separate_kernels(captured) : cudaSuccess;
  if (status == cudaSuccess) status = cudaGraphInstantiate(&graph.exec, captured, 0);
  (void)cudaGraphDestroy(captured);
  check(status, "graph");
}

void DeviceQueue::forget_oldest() {
  if (graphs_.size() <= kMaxGraphs) return;
  const auto oldest = std::min_element(graphs_.begin(), graphs_.end(), [](auto& a, auto& b) {
    return a.second.used < b.second.used;
  });
  if (oldest->second.exec != nullptr) (void)cudaGraphExecDestroy(oldest->second.exec);
  graphs_.erase(oldest);
}

void DeviceQueue::on_host(const std::function<void()>& work) {
  if (!walking_) return work();
  if (recording_) throw NotRecordable{};
  ends_on_host_ = true;
}

const void* DeviceQueue::put_bytes(const void* data, std::size_t bytes) {
  // Every layer asks for the same positions; they are looked for among the last puts.
  constexpr std::size_t kLook = 8;
  const std::byte* const staged = stagings_[staging_].bytes;
  for (std::size_t i = 0; i < std::min(kLook, puts_.size()); ++i) {
    const Put& put = puts_[puts_.size() - 1 - i];
    if (put.bytes == bytes && std::memcmp(staged + put.offset, data, bytes) == 0) {
      return data_ + put.offset;
    }
  }
  const std::size_t offset = data_used_;
  data_used_ = round_up(offset + bytes, kAlign);
  if (data_used_ > data_bytes_) grow_data(2 * data_used_);
  // In the second walk of a step the same bytes are there already, perhaps being copied.
  if (walking_) std::memcpy(stagings_[staging_].bytes + offset, data, bytes);
  puts_.push_back({offset, bytes});
  return data_ + offset;
}

void DeviceQueue::grow_data(std::size_t bytes) {
  check(cudaStreamSynchronize(stream_), "device");
  for (Staging& staging : stagings_) {
    void* pinned = nullptr;
    check(cudaMallocHost(&pinned, bytes), "host memory for copies");
    if (data_bytes_ > 0) std::memcpy(pinned, staging.bytes, data_bytes_);
    (void)cudaFreeHost(staging.bytes);
    staging.bytes = static_cast<std::byte*>(pinned);
  }
  (void)cudaFree(data_);
  void* device = nullptr;
  check(cudaMalloc(&device, bytes), "workspace");
  data_ = static_cast<std::byte*>(device);
  data_bytes_ = bytes;
  moved_ = true;
}

void DeviceQueue::grow(Block& block, std::size_t bytes) {
  check(cudaStreamSynchronize(stream_), "device");
  (void)cudaFree(block.data);
  block = {};
  void* device = nullptr;
  check(cudaMalloc(&device, bytes), "workspace");
  block = {static_cast<std::byte*>(device), bytes};
  moved_ = true;
}

void* DeviceQueue::workspace(std::size_t bytes) {
  if (bytes > workspace_.bytes) grow(workspace_, bytes);
  return workspace_.data;
}

void* DeviceQueue::own_workspace(Family family, std::size_t bytes) {
  Block& block = own_[static_cast<std::size_t>(family)];
  if (bytes > block.bytes) {
    grow(block, bytes);
    check(cudaMemsetAsync(block.data, 0, bytes, stream_), "workspace");
  }
  return block.data;
}

void DeviceQueue::mix_bytes(const void* data, std::size_t bytes) {
  const auto* at = static_cast<const std::byte*>(data);
  for (; bytes >= 8; at += 8, bytes -= 8) {
    std::uint64_t word;
    std::memcpy(&word, at, 8);
    mix(word);
  }
  std::uint64_t rest = 0;
  std::memcpy(&rest, at, bytes);
  mix(rest ^ bytes << 56);
}

}  // namespace nibble
