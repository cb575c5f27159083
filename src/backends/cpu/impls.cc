#include "backends/cpu/impls.h"

#include <algorithm>
#include <array>
#include <utility>

#include "backends/cpu/levels.h"
#include "base/error.h"
#include "ops/weight_codec.h"

namespace nibble::cpu {
namespace {

template <class Args>
constexpr std::array<Impl<Args>, 0> kNoUnits = {};

// The list of an op that has one kernel a level, and perhaps some units, which come first.
template <class Args, auto kFits, auto kRun, void (*kReference)(const Args&, ExecContext&),
          const auto& kUnits = kNoUnits<Args>>
ImplList<Args> levels() {
  const auto make = []<std::size_t... kUnit, std::size_t... kIndex>(
      std::index_sequence<kUnit...>, std::index_sequence<kIndex...>) {
    return std::array{
        kUnits[kUnit]...,
        of_level<Args, *kLevels[kIndex], kFits, kRun>(to_string(kLevels[kIndex]->isa).data())...,
        Impl<Args>{"reference", always<Args>, kReference},
    };
  };
  static const auto kImpls = make(std::make_index_sequence<std::size(kUnits)>(),
                                  std::make_index_sequence<std::size(kLevels)>());
  return kImpls;
}

// The list of an op that is too small to be worth a kernel.
template <class Args, void (*kReference)(const Args&, ExecContext&)>
ImplList<Args> reference_only() {
  static constexpr Impl<Args> kImpls[] = {{"reference", always<Args>, kReference}};
  return kImpls;
}

// By the span kernels of the highest level, and all threads.
template <class Args, void (*kBy)(const Args&, const Codec&),
          void (*kReference)(const Args&, ExecContext&)>
ImplList<Args> codec_impls() {
  static constexpr Impl<Args> kImpls[] = {{"spans", always<Args>,
                                           [](const Args& args, ExecContext& context) {
                                             kBy(args, {&spans_of(context.caps), &context.pool});
                                           }},
                                          {"reference", always<Args>, kReference}};
  return kImpls;
}

}  // namespace

const KernelTable& best_level(const DeviceCaps& caps) {
  const auto* const level = std::ranges::find_if(
      kLevels, [&](const Level* candidate) { return candidate->usable(caps); });
  NIBBLE_CHECK(level != std::end(kLevels));  // the generic one always is
  return (*level)->kernels();
}

const SpanKernels& spans_of(const DeviceCaps& caps) { return best_level(caps).spans; }

ImplList<LinearArgs> linear_impls() { return kLinearImpls; }

ImplList<NormArgs> norm_impls() { return levels<NormArgs, norm_fits, run_norm, reference::norm>(); }
ImplList<RopeArgs> rope_impls() { return levels<RopeArgs, rope_fits, run_rope, reference::rope>(); }
ImplList<HadamardArgs> hadamard_impls() {
  return levels<HadamardArgs, hadamard_fits, run_hadamard, reference::hadamard>();
}
ImplList<KvWriteArgs> kv_write_impls() {
  return levels<KvWriteArgs, kv_write_fits, run_kv_write, reference::kv_write>();
}
ImplList<AttentionArgs> attention_impls() {
  return levels<AttentionArgs, attention_fits, run_attention, reference::attention,
                kAttentionUnits>();
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
ImplList<ArgmaxArgs> argmax_impls() { return reference_only<ArgmaxArgs, reference::argmax>(); }
ImplList<SampleArgs> sample_impls() { return reference_only<SampleArgs, reference::sample>(); }
ImplList<TransposeArgs> transpose_impls() {
  return reference_only<TransposeArgs, reference::transpose>();
}
ImplList<ColumnSumsArgs> column_sums_impls() {
  return reference_only<ColumnSumsArgs, reference::column_sums>();
}
ImplList<ScaleArgs> scale_impls() { return reference_only<ScaleArgs, reference::scale>(); }
ImplList<EncodeArgs> encode_impls() {
  return codec_impls<EncodeArgs, encode_by, reference::encode>();
}
ImplList<DecodeArgs> decode_impls() {
  return codec_impls<DecodeArgs, decode_by, reference::decode>();
}
ImplList<SubtractProductArgs> subtract_product_impls() {
  return reference_only<SubtractProductArgs, reference::subtract_product>();
}
ImplList<InverseFactorArgs> inverse_factor_impls() {
  return reference_only<InverseFactorArgs, reference::inverse_factor>();
}

}  // namespace nibble::cpu
