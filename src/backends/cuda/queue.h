// The stream of work of one device, and the record of a step that is played again.
//
// A forward pass of few tokens is some hundred kernels of a few microseconds each: launching them
// one by one would take longer than running them. A step is therefore first walked without
// launching anything: that gives the data that its kernels read from the host (ids, positions,
// lengths), its launches and a fingerprint of them (kernels, shapes, addresses). When the same
// fingerprint comes a second time, the launches are recorded as a CUDA graph; from then on such a
// step is one copy and one launch.
//
// So whatever changes from step to step must reach kernels through put(), not as an argument.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backends/cuda/status.h"

namespace nibble {

// Not thread-safe.
class DeviceQueue {
 public:
  DeviceQueue();
  ~DeviceQueue();
  DeviceQueue(const DeviceQueue&) = delete;
  DeviceQueue& operator=(const DeviceQueue&) = delete;

  cudaStream_t stream() const { return stream_; }

  // A fingerprint, one value longer.
  static constexpr std::uint64_t kNoValues = 0xcbf29ce484222325u;
  static std::uint64_t mixed(std::uint64_t fingerprint, std::uint64_t value) {
    fingerprint = (fingerprint ^ value) * 0x9e3779b97f4a7c15u;
    return fingerprint ^ fingerprint >> 29;
  }

  // Runs `step`, which calls the functions below. With `record`, as described above.
  void run(const std::function<void()>& step, bool record);

  // Records `step`, if no step with its fingerprint was recorded before, and plays the record
  // 1 + `plays` times: seconds that one of the last `plays` takes on the device. With `barriers`
  // every kernel begins when the one ahead of it has ended, and no sooner. None, and nothing is
  // timed, for a step that is never recorded. Not inside a step.
  std::optional<double> time(const std::function<void()>& step, int plays, bool barriers);

  // Inside a step.
  //
  // Copies host data to the device, for the kernels of this step. Aligned to 16 bytes.
  template <class T>
  const T* put(std::span<const T> values) {
    static_assert(std::is_trivially_copyable_v<T>);
    return static_cast<const T*>(put_bytes(values.data(), values.size_bytes()));
  }
  // The same for what is large and alike in many ops of a step: `make` gives it where `name` is new
  // in this step. Equal names mean equal values.
  template <class T, class Make>
  const T* put_once(std::uint64_t name, const Make& make) {
    const auto [entry, is_new] = named_.try_emplace(name, nullptr);
    if (is_new) entry->second = put(std::span<const T>(make()));
    return static_cast<const T*>(entry->second);
  }
  // Memory for one op: what it holds is lost with the next. Aligned to 256 bytes.
  void* workspace(std::size_t bytes);
  // Memory of a family of kernels alone, which starts as zeros: they clear again what must be zero
  // when they meet it. Aligned to 256 bytes.
  enum class Family { kRounded, kAttention, kLinear };
  void* own_workspace(Family family, std::size_t bytes);

  // Launches by `kernel(params, stream)`. Params say all that distinguishes one launch from
  // another.
  template <class Params>
  void launch(const char* what, const Params& params,
              cudaError_t (*kernel)(const Params&, cudaStream_t)) {
    static_assert(std::is_trivially_copyable_v<Params>);
    if (!walking_) return cuda::check(kernel(params, stream_), what);
    mix(reinterpret_cast<std::uintptr_t>(kernel));
    mix_bytes(&params, sizeof(params));
    const auto start = [](Kernel any, const void* noted, cudaStream_t stream) {
      return reinterpret_cast<decltype(kernel)>(any)(*static_cast<const Params*>(noted), stream);
    };
    static_assert(alignof(Params) <= alignof(std::max_align_t));
    note({what, start, reinterpret_cast<Kernel>(kernel), 0}, &params, sizeof(params));
  }
  // For an op that ends on the host: `work` may wait for the stream. A step with one is never
  // recorded, and runs a second time to be launched.
  void on_host(const std::function<void()>& work);

 private:
  struct NotRecordable {};
  class InStep;
  struct Graph {
    cudaGraphExec_t exec = nullptr;  // null: seen once
    std::uint64_t used = 0;          // when last
  };
  // Pinned memory from which a step's data is copied.
  struct Staging {
    std::byte* bytes = nullptr;
    cudaEvent_t copied = nullptr;
  };

  using Kernel = void (*)();
  struct Noted {
    const char* what;
    cudaError_t (*start)(Kernel kernel, const void* params, cudaStream_t stream);
    Kernel kernel;
    std::size_t params;  // where they begin in params_
  };
  void note(Noted launch, const void* params, std::size_t bytes);

  const void* put_bytes(const void* data, std::size_t bytes);
  void start_puts();
  void mix(std::uint64_t value) { fingerprint_ = mixed(fingerprint_, value); }
  void mix_bytes(const void* data, std::size_t bytes);
  void walk(const std::function<void()>& step);
  void upload();
  void issue(const std::function<void()>& step);  // what was walked
  // Records the step, unless it is recorded.
  void record(const std::function<void()>& step, Graph& graph);
  // The record of the step that was walked last, and whether it came for the first time.
  std::pair<Graph*, bool> graph_of_walk();
  void forget_oldest();
  void grow_data(std::size_t bytes);

  static constexpr int kStagings = 4;
  static constexpr std::size_t kMaxGraphs = 64;

  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;  // of what is timed
  bool in_step_ = false;
  bool walking_ = false;    // nothing is launched
  bool recording_ = false;  // within run(..., true)
  bool barriers_ = false;   // kernels do not overlap in what is recorded
  bool moved_ = false;      // an address has changed during this walk
  std::uint64_t fingerprint_ = 0;
  std::uint64_t steps_ = 0;
  std::map<std::uint64_t, Graph> graphs_;

  Staging stagings_[kStagings];
  int staging_ = 0;
  std::byte* data_ = nullptr;  // on the device
  std::size_t data_bytes_ = 0;
  std::size_t data_used_ = 0;
  struct Put {
    std::size_t offset, bytes;
  };
  std::vector<Put> puts_;                                 // of this step
  std::unordered_map<std::uint64_t, const void*> named_;  // of these, by name
  std::vector<Noted> launches_;
  std::vector<std::max_align_t> params_;
  bool ends_on_host_ = false;  // the step that was walked last
  struct Block {
    std::byte* data = nullptr;
    std::size_t bytes = 0;
  };
  // Makes the block at least so large; what it held is lost.
  void grow(Block& block, std::size_t bytes);
  Block workspace_;
  Block own_[3];  // by family
};

}  // namespace nibble
