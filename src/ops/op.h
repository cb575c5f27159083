// How work is asked for. An op is an Args struct; a backend has, for each op, an ordered list of
// implementations that say whether they can run a given Args, and why not. The reference
// implementation is the last of every list: correct everywhere, and the oracle of the tests.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/thread_pool.h"

namespace nibble {

// Instruction-set levels of CPU kernels. Those that one machine can have stand in rising order of
// preference: kNeon is never on a machine with the others above kGeneric.
enum class CpuIsa { kGeneric, kAvx2, kAvx512, kAmx, kNeon };
std::string_view to_string(CpuIsa isa);

// What the machine that runs the ops can do.
struct DeviceCaps {
  CpuIsa isa = CpuIsa::kGeneric;  // highest level that may be used (NIBBLE_ISA lowers it)
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool fast_avx512_bf16 = false;  // products of bf16 pairs are faster than those of float32
  bool neon_dotprod = false;
  bool neon_i8mm = false;
  bool neon_bf16 = false;
  int compute_capability = 0;      // of a CUDA device: 90 for 9.0; 0 on a CPU
  int multiprocessors = 0;         // of a CUDA device
  bool device_blas = false;        // the vendor's matrix product for that device was found
  bool exact_activations = false;  // kernels may not round activations below float32
};

// What the inner products of an implementation are made of: the peak that it is held against.
// Activations are rounded to bf16, f16 or (by block) bytes, and sums are wider. Weights are rounded
// to bf16 by kBf16; by kBf16Scaled too, and their scales before them; by the others not at all:
// those of kBf16Exact are integers that bf16 holds, scaled in float32, and those of kF16 are stored
// so.
// kInt8 has bytes over the range of a block, kSignedInt8 those from -127 to 127 times a scale.
enum class Arithmetic { kFloat32, kBf16, kBf16Exact, kBf16Scaled, kF16, kInt8, kSignedInt8, kFp8 };
std::string_view to_string(Arithmetic arithmetic);

// Answer of an implementation: yes, or no with a reason.
struct Support {
  bool ok = true;
  std::string why;

  static Support yes() { return {}; }
  static Support no(std::string reason) { return {false, std::move(reason)}; }
};

class DeviceQueue;  // the stream of work of a device that is not the host

// What an implementation may use while it runs.
struct ExecContext {
  ThreadPool& pool;
  const DeviceCaps& caps;
  DeviceQueue* queue = nullptr;  // null on the CPU
};

template <class Args>
struct Impl {
  // "reference", "avx2", "avx512_blocked": unique in its list, used by NIBBLE_FORCE
  const char* name;
  Support (*supports)(const Args& args, const DeviceCaps& caps);
  void (*run)(const Args& args, ExecContext& context);
  Arithmetic arithmetic = Arithmetic::kFloat32;
  // Whether the machine has the instructions, whatever the arguments.
  bool (*usable)(const DeviceCaps& caps) = [](const DeviceCaps&) { return true; };
  // Runs calls that read the same input, so that what is made of it is made once; null: one call
  // after the other.
  void (*run_together)(std::span<const Args> calls, ExecContext& context) = nullptr;
};

template <class Args>
using ImplList = std::span<const Impl<Args>>;

}  // namespace nibble
