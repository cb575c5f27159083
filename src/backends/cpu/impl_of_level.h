// Entries of implementation lists, made from a driver and the kernels of a level.
#pragma once

#include <fmt/format.h>

#include "backends/cpu/drivers.h"
#include "ops/reference/reference.h"

namespace nibble::cpu {

struct Level {
  CpuIsa isa;
  const KernelTable& (*kernels)();
};

inline constexpr Level kGeneric = {CpuIsa::kGeneric, generic_kernels};

// It needs the level, and what the driver asks of the arguments.
template <const Level& kLevel, auto kFits, auto kRun, class Args>
struct OfLevel {
  static bool usable(const DeviceCaps& caps) { return caps.isa >= kLevel.isa; }
  static Support supports(const Args& args, const DeviceCaps& caps) {
    if (!usable(caps)) return Support::no(fmt::format("needs {}", to_string(kLevel.isa)));
    return kFits(kLevel.kernels(), args);
  }
  static void run(const Args& args, ExecContext& context) { kRun(kLevel.kernels(), args, context); }
};

template <class Args, const Level& kLevel, auto kFits, auto kRun>
constexpr Impl<Args> of_level(const char* name) {
  using L = OfLevel<kLevel, kFits, kRun, Args>;
  return {name, L::supports, L::run, Arithmetic::kFloat32, L::usable};
}

// Linear on byte codes, by instructions that not every machine of the level has: a flag of
// DeviceCaps, or null. Rounding the activations is left out when results must be exact.
template <const Level& kLevel, const Int8Kernels& (*kKernels)(), bool DeviceCaps::*kFlag>
struct Int8OfLevel {
  static bool usable(const DeviceCaps& caps) {
    if constexpr (kFlag != nullptr) {
      if (!(caps.*kFlag)) return false;
    }
    return caps.isa >= kLevel.isa;
  }
  static Support supports(const LinearArgs& args, const DeviceCaps& caps) {
    if (!usable(caps)) {
      return Support::no(fmt::format("needs {}{}", to_string(kLevel.isa),
                                     kFlag == nullptr ? "" : " with products of bytes"));
    }
    if (caps.exact_activations) return Support::no("activations are not to be rounded");
    return int8_fits(kKernels(), args);
  }
  static void run(const LinearArgs& args, ExecContext& context) {
    run_int8(kKernels(), args, context);
  }
};

template <const Level& kLevel, const Int8Kernels& (*kKernels)(), bool DeviceCaps::*kFlag = nullptr>
constexpr Impl<LinearArgs> int8_of_level(const char* name) {
  using L = Int8OfLevel<kLevel, kKernels, kFlag>;
  return {name, L::supports, L::run, Arithmetic::kInt8, L::usable};
}

template <class Args>
Support always(const Args&, const DeviceCaps&) {
  return Support::yes();
}

inline constexpr Impl<LinearArgs> kReferenceLinear = {"reference", always<LinearArgs>,
                                                      reference::linear};

}  // namespace nibble::cpu
