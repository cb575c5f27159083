#include "backends/cpu/impls.h"

#include "backends/cpu/drivers.h"
#include "ops/reference/reference.h"

namespace nibble::cpu {
namespace {

constexpr CpuIsa kAvx512 = CpuIsa::kAvx512;
constexpr CpuIsa kAvx2 = CpuIsa::kAvx2;
constexpr CpuIsa kGeneric = CpuIsa::kGeneric;

template <CpuIsa kIsa>
const KernelTable& kernels() {
  if constexpr (kIsa == kAvx512) return avx512_kernels();
  if constexpr (kIsa == kAvx2) return avx2_kernels();
  if constexpr (kIsa == kGeneric) return generic_kernels();
}

// An implementation from a driver: it needs the level, and what the driver asks of the arguments.
template <CpuIsa kIsa, auto kFits, auto kRun, class Args>
struct Level {
  static bool usable(const DeviceCaps& caps) { return caps.isa >= kIsa; }
  static Support supports(const Args& args, const DeviceCaps& caps) {
    if (!usable(caps)) return Support::no(std::string("needs ") + std::string(to_string(kIsa)));
    return kFits(kernels<kIsa>(), args);
  }
  static void run(const Args& args, ExecContext& context) { kRun(kernels<kIsa>(), args, context); }
};

template <class Args, CpuIsa kIsa, auto kFits, auto kRun>
constexpr Impl<Args> level(const char* name) {
  using L = Level<kIsa, kFits, kRun, Args>;
  return {name, L::supports, L::run, Arithmetic::kFloat32, L::usable};
}

template <class Args>
Support always(const Args&, const DeviceCaps&) {
  return Support::yes();
}

// The list of an op that has one kernel a level.
template <class Args, auto kFits, auto kRun, void (*kReference)(const Args&, ExecContext&)>
ImplList<Args> levels() {
  static constexpr Impl<Args> kImpls[] = {
      level<Args, kAvx512, kFits, kRun>("avx512"),
      level<Args, kAvx2, kFits, kRun>("avx2"),
      level<Args, kGeneric, kFits, kRun>("generic"),
      {"reference", always<Args>, kReference},
  };
  return kImpls;
}

// The list of an op that is too small to be worth a kernel.
template <class Args, void (*kReference)(const Args&, ExecContext&)>
ImplList<Args> reference_only() {
  static constexpr Impl<Args> kImpls[] = {{"reference", always<Args>, kReference}};
  return kImpls;
}

// Linear on byte codes. Rounding the activations is left out when results must be exact.
template <CpuIsa kIsa, const Int8Kernels& (*kKernels)()>
struct Int8Level {
  static bool usable(const DeviceCaps& caps) {
    return caps.isa >= kIsa && (kIsa != kAvx512 || caps.avx512_vnni);
  }
  static Support supports(const LinearArgs& args, const DeviceCaps& caps) {
    if (!usable(caps)) {
      return Support::no(
          fmt::format("needs {}{}", to_string(kIsa), kIsa == kAvx512 ? " with VNNI" : ""));
    }
    if (caps.exact_activations) return Support::no("activations are not to be rounded");
    return int8_fits(kKernels(), args);
  }
  static void run(const LinearArgs& args, ExecContext& context) {
    run_int8(kKernels(), args, context);
  }
};

template <CpuIsa kIsa, const Int8Kernels& (*kKernels)()>
constexpr Impl<LinearArgs> int8_level(const char* name) {
  using L = Int8Level<kIsa, kKernels>;
  return {name, L::supports, L::run, Arithmetic::kInt8, L::usable};
}

}  // namespace

ImplList<LinearArgs> linear_impls() {
  static constexpr Impl<LinearArgs> kImpls[] = {
      int8_level<kAvx512, avx512_vnni_kernels>("avx512_vnni"),
      level<LinearArgs, kAvx512, gemv_fits, run_gemv>("avx512_gemv"),
      level<LinearArgs, kAvx512, blocked_fits, run_blocked>("avx512_blocked"),
      int8_level<kAvx2, avx2_int8_kernels>("avx2_int8"),
      level<LinearArgs, kAvx2, gemv_fits, run_gemv>("avx2_gemv"),
      level<LinearArgs, kAvx2, blocked_fits, run_blocked>("avx2_blocked"),
      level<LinearArgs, kGeneric, gemv_fits, run_gemv>("generic_gemv"),
      level<LinearArgs, kGeneric, blocked_fits, run_blocked>("generic_blocked"),
      {"reference", always<LinearArgs>, reference::linear},
  };
  return kImpls;
}

ImplList<NormArgs> norm_impls() { return levels<NormArgs, norm_fits, run_norm, reference::norm>(); }
ImplList<RopeArgs> rope_impls() { return levels<RopeArgs, rope_fits, run_rope, reference::rope>(); }
ImplList<KvWriteArgs> kv_write_impls() {
  return levels<KvWriteArgs, kv_write_fits, run_kv_write, reference::kv_write>();
}
ImplList<AttentionArgs> attention_impls() {
  return levels<AttentionArgs, attention_fits, run_attention, reference::attention>();
}
ImplList<ActivationArgs> activation_impls() {
  return levels<ActivationArgs, activation_fits, run_activation, reference::activation>();
}
ImplList<AddArgs> add_impls() { return levels<AddArgs, add_fits, run_add, reference::add>(); }

ImplList<EmbedArgs> embed_impls() { return reference_only<EmbedArgs, reference::embed>(); }
ImplList<MoeRouteArgs> moe_route_impls() {
  return reference_only<MoeRouteArgs, reference::moe_route>();
}
ImplList<GatherRowsArgs> gather_rows_impls() {
  return reference_only<GatherRowsArgs, reference::gather_rows>();
}
ImplList<ScatterAddRowsArgs> scatter_add_rows_impls() {
  return reference_only<ScatterAddRowsArgs, reference::scatter_add_rows>();
}

}  // namespace nibble::cpu
