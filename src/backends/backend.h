// A device that runs ops: for each op an ordered list of implementations, walked at every call.
//
//   NIBBLE_VERBOSE=dispatch           log which implementation was taken, and why others were
//                                     not (once each)
//   NIBBLE_ISA=generic|avx2|avx512|amx|neon
//                                     use at most this level
//   NIBBLE_FORCE=linear:reference,attention:avx2
//                                     take exactly this implementation or fail
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backends/memory.h"
#include "backends/packed_store.h"
#include "base/log.h"
#include "ops/args.h"
#include "ops/chain.h"
#include "ops/op.h"
#include "tensor/buffer_pool.h"

namespace nibble {

struct BackendOptions {
  int threads = 0;    // 0 = one a physical core
  std::string isa;    // as NIBBLE_ISA; empty = the best the machine has
  std::string force;  // as NIBBLE_FORCE
  bool verbose_dispatch = false;
  bool exact = false;                // no implementation that rounds activations
  std::size_t gpu_memory_bytes = 0;  // use at most so much of the card's memory; 0 = all of it
  LogSink log;

  // Options from the environment variables above.
  static BackendOptions from_environment();
};

// One entry of `nibble list impls`.
struct ImplRow {
  std::string op;
  std::string name;
  bool usable = false;  // on this machine
  Arithmetic arithmetic = Arithmetic::kFloat32;
};

// Not thread-safe: one thread issues work; the work itself runs on the pool.
class Backend {
 public:
  // Keeps at most so many bytes of buffers that are not in use.
  explicit Backend(std::size_t max_free_buffer_bytes)
      : buffers_([this](std::int64_t count) { return memory().allocate(DType::kF32, {count}); },
                 max_free_buffer_bytes) {}
  virtual ~Backend() = default;

  virtual const DeviceCaps& caps() const = 0;
  virtual ThreadPool& pool() = 0;
  // For weights in the host's memory, whatever the device: kernels of its processor, and the pool.
  virtual Codec codec();
  // Every pointer in the arguments of an op points into this memory, unless its comment says that
  // it is the host's; spans are the host's.
  virtual DeviceMemory& memory() = 0;
  // Buffers of it, for the thread that issues work.
  BufferPool& buffers() { return buffers_; }

  // Runs `step`, which issues ops (and does nothing else of effect), such as one forward pass of a
  // few tokens. A device that is slow to be told what to do may record the ops, and play the record
  // when a later step issues the same ones.
  virtual void run_step(const std::function<void()>& step) { step(); }

  // Runs the first implementation that supports the arguments. kUnsupported, with every reason,
  // when none does (a forced one, say); kUsage when NIBBLE_FORCE names none.
#define NIBBLE_OP(name, Args) virtual void run(const Args& args) = 0;
#include "ops/ops.def"
#undef NIBBLE_OP

  // Calls with the same x, x_stride and m, whose results do not overlap: as one run() each, but
  // what an implementation makes of x may be made once.
  virtual void run_together(std::span<const LinearArgs> calls) = 0;

  // As run() for each, and run_together() for linear calls; a kernel may do several at once.
  virtual void run_chain(std::span<const ChainLink> links);

  // Takes a weight for use in LinearArgs; may repack it for its kernels. A weight with a name (one
  // that no other weight of the model has) is looked up in the packed store first. `activations` is
  // what all calls with the weight will ask for: it may be kept for such calls alone.
  virtual LinearWeight prepare(QuantTensor weight, const std::string& name,
                               const ActivationFormat* activations) = 0;
  LinearWeight prepare(QuantTensor weight, const std::string& name = "") {
    return prepare(std::move(weight), name, nullptr);
  }
  // Where named weights are looked up, and put when they had to be repacked; null for nowhere.
  virtual void use_packed_store(std::shared_ptr<PackedStore> store) = 0;

  virtual std::vector<ImplRow> impl_rows() const = 0;
  // Of the implementation that would run these arguments; kUnsupported when there is none.
  virtual Arithmetic arithmetic_of(const LinearArgs& args) const = 0;

  // An embedding table for use in EmbedArgs; a weight for use in DecodeArgs.
  virtual QuantTensor prepare_table(QuantTensor table) { return table; }

  // Whether the device itself rounds a [rows, cols] matrix in its memory to the format
  // (EncodeArgs). Otherwise that op goes by way of the host, where codec() serves better.
  virtual bool encodes(const Format&, std::int64_t /*rows*/, std::int64_t /*cols*/) const {
    return false;
  }

 private:
  BufferPool buffers_;
};

// The CPU backend. kUsage when an option names an unknown ISA, op or implementation; kUnsupported
// when the machine lacks the ISA.
std::unique_ptr<Backend> make_cpu_backend(
    const BackendOptions& options = BackendOptions::from_environment());

// "auto", "cpu" or "cuda[:n]". Without CUDA in the build, cuda is kUnsupported and auto is the CPU.
std::unique_ptr<Backend> make_backend(
    const std::string& device, const BackendOptions& options = BackendOptions::from_environment());

}  // namespace nibble
