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

}  // namespace

DeviceQueue::DeviceQueue() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
  for (Staging& staging : stagings_) {
    check(cudaEventCreateWithFlags(&staging.copied, cudaEventDisableTiming), "event");
  }
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
  (void)cudaFree(data_);
  (void)cudaFree(workspace_.data);
  for (const Block& block : own_) (void)cudaFree(block.data);
  (void)cudaStreamDestroy(stream_);
}

void DeviceQueue::run(const std::function<void()>& step, bool record_it) {
  if (in_step_) return step();  // part of a larger one
  in_step_ = true;
  recording_ = record_it;
  struct Done {
    DeviceQueue& queue;
    ~Done() { queue.in_step_ = queue.walking_ = queue.recording_ = false; }
  } done{*this};
  try {
    walk(step);
  } catch (const NotRecordable&) {
    // Its ops run one by one, as steps of their own.
    in_step_ = walking_ = recording_ = false;
    return step();
  }
  upload();
  ++steps_;
  if (record_it) {
    const auto [entry, is_new] = graphs_.try_emplace(fingerprint_);
    Graph& graph = entry->second;
    graph.used = steps_;
    if (!is_new) {
      if (graph.exec == nullptr) record(step, graph);
      check(cudaGraphLaunch(graph.exec, stream_), "graph");
      return;
    }
    forget_oldest();
  }
  data_used_ = 0;
  puts_.clear();
  step();
}

void DeviceQueue::walk(const std::function<void()>& step) {
  do {
    moved_ = false;
    fingerprint_ = 0xcbf29ce484222325u;
    data_used_ = 0;
    puts_.clear();
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
  data_used_ = 0;
  puts_.clear();
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "graph");
  cudaGraph_t captured = nullptr;
  try {
    step();
  } catch (...) {
    (void)cudaStreamEndCapture(stream_, &captured);
    if (captured != nullptr) (void)cudaGraphDestroy(captured);
    throw;
  }
  check(cudaStreamEndCapture(stream_, &captured), "graph");
  const cudaError_t status = cudaGraphInstantiate(&graph.exec, captured, 0);
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
  if (walking_ && recording_) throw NotRecordable{};
  if (!walking_) work();
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

void DeviceQueue::mix(std::uint64_t value) {
  fingerprint_ = (fingerprint_ ^ value) * 0x9e3779b97f4a7c15u;
  fingerprint_ ^= fingerprint_ >> 29;
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
