// Entries of implementation lists, made from a driver and the kernels of a level.
#pragma once

#include <fmt/format.h>

#include "backends/cpu/drivers.h"
#include "ops/linear_input.h"
#include "ops/reference/reference.h"

namespace nibble::cpu {

struct Level {
  CpuIsa isa;
  const KernelTable& (*kernels)();

  constexpr bool usable(const DeviceCaps& caps) const { return caps.isa >= isa; }
};

inline constexpr Level kGeneric = {CpuIsa::kGeneric, generic_kernels};

// Of ops other than linear: nothing is asked of their inputs.
template <class Args>
Support takes_input(const Args& /*args*/) {
  return Support::yes();
}

// It needs the level, and what the driver asks of the arguments.
template <class Args, const Level& kLevel, auto kFits, auto kRun>
constexpr Impl<Args> of_level(const char* name) {
  return {
      .name = name,
      .supports =
          [](const Args& args, const DeviceCaps& caps) {
            if (!kLevel.usable(caps)) {
              return Support::no(fmt::format("needs {}", to_string(kLevel.isa)));
            }
            const Support input = takes_input(args);
            return input.ok ? kFits(kLevel.kernels(), args) : input;
          },
      .run = [](const Args& args, ExecContext& context) { kRun(kLevel.kernels(), args, context); },
      .usable = [](const DeviceCaps& caps) { return kLevel.usable(caps); }};
}

// Kernels beside those of a level, which need a flag of DeviceCaps (or, null, only the level).
template <class Kernels>
struct Unit {
  CpuIsa isa;
  Arithmetic arithmetic;
  const Kernels& (*kernels)();
  bool DeviceCaps::*flag = nullptr;

  constexpr bool usable(const DeviceCaps& caps) const {
    return caps.isa >= isa && (flag == nullptr || caps.*flag);
  }
};

// What a unit that rounds activations supports: nothing when results must be exact.
template <const auto& kUnit, auto kFits, class Args>
Support unit_supports(const Args& args, const DeviceCaps& caps) {
  if (!kUnit.usable(caps)) {
    return Support::no(fmt::format("needs {} with products of {}", to_string(kUnit.isa),
                                   to_string(kUnit.arithmetic)));
  }
  if (caps.exact_activations) return Support::no("activations are not to be rounded");
  const Support input = takes_input(args);
  return input.ok ? kFits(kUnit.kernels(), args) : input;
}

template <const auto& kUnit, auto kFits, auto kRun>
constexpr Impl<LinearArgs> of_unit(const char* name) {
  return {.name = name,
          .supports = unit_supports<kUnit, kFits, LinearArgs>,
          .run =
              [](const LinearArgs& args, ExecContext& context) {
                kRun(kUnit.kernels(), {&args, 1}, context);
              },
          .arithmetic = kUnit.arithmetic,
          .usable = [](const DeviceCaps& caps) { return kUnit.usable(caps); },
          .run_together = [](std::span<const LinearArgs> calls,
                             ExecContext& context) { kRun(kUnit.kernels(), calls, context); }};
}

// Products of the codes that a format of activations makes of x: nothing is rounded beyond it.
template <const auto& kUnit>
constexpr Impl<LinearArgs> of_token_unit(const char* name) {
  return {.name = name,
          .supports =
              [](const LinearArgs& args, const DeviceCaps& caps) {
                if (kUnit.usable(caps)) return token_fits(token_kernels(kUnit.kernels()), args);
                return Support::no(
                    fmt::format("needs {} with products of bytes", to_string(kUnit.isa)));
              },
          .run =
              [](const LinearArgs& args, ExecContext& context) {
                run_token(token_kernels(kUnit.kernels()), {&args, 1}, context);
              },
          .arithmetic = Arithmetic::kInt8,
          .usable = [](const DeviceCaps& caps) { return kUnit.usable(caps); },
          .run_together =
              [](std::span<const LinearArgs> calls, ExecContext& context) {
                run_token(token_kernels(kUnit.kernels()), calls, context);
              }};
}

// Attention by the tiles of a unit of bf16 products and the rows of it and a unit of byte products.
template <const Unit<Bf16Kernels>& kUnit, const Unit<Int8Kernels>& kBytes, const Level& kLevel>
constexpr Impl<AttentionArgs> attention_of_units(const char* name) {
  return {
      .name = name,
      .supports =
          [](const AttentionArgs& args, const DeviceCaps& caps) {
            if (!kBytes.usable(caps)) return Support::no("needs products of bytes");
            return unit_supports<kUnit, pair_attention_fits>(args, caps);
          },
      .run =
          [](const AttentionArgs& args, ExecContext& context) {
            const Bf16Kernels& pairs = kUnit.kernels();
            run_attention_by({kLevel.kernels(),
                              pairs.attention_tiles,
                              {&kBytes.kernels().attention_rows, &pairs.attention_rows}},
                             args, context);
          },
      .arithmetic = kUnit.arithmetic,
      .usable = [](const DeviceCaps& caps) { return kUnit.usable(caps) && kBytes.usable(caps); }};
}

// Attention over codes by the rows of a unit of byte products.
template <const Unit<Int8Kernels>& kUnit, const Level& kLevel>
constexpr Impl<AttentionArgs> attention_of_bytes(const char* name) {
  return {.name = name,
          .supports =
              [](const AttentionArgs& args, const DeviceCaps& caps) {
                const Support codes = unit_supports<kUnit, code_attention_fits>(args, caps);
                return codes.ok ? attention_fits(kLevel.kernels(), args) : codes;
              },
          .run =
              [](const AttentionArgs& args, ExecContext& context) {
                const KernelTable& level = kLevel.kernels();
                run_attention_by({level, level.attention_tiles, {&kUnit.kernels().attention_rows}},
                                 args, context);
              },
          .arithmetic = kUnit.arithmetic,
          .usable = [](const DeviceCaps& caps) { return kUnit.usable(caps); }};
}

// What measures the peak of a level or a unit.
struct Probed {
  CpuIsa isa;
  Arithmetic arithmetic;
  bool (*usable)(const DeviceCaps& caps);
  ArithmeticProbe (*probe)();
};

template <const Level& kLevel>
constexpr Probed probed_level() {
  return {kLevel.isa, Arithmetic::kFloat32,
          [](const DeviceCaps& caps) { return kLevel.usable(caps); },
          [] { return kLevel.kernels().probe; }};
}

inline ArithmeticProbe probe_of(const Bf16Kernels& kernels) { return kernels.probe; }
inline ArithmeticProbe probe_of(const TokenKernels& kernels) { return kernels.probe; }
inline ArithmeticProbe probe_of(const Int8Kernels& kernels) { return kernels.token.probe; }

template <const auto& kUnit>
constexpr Probed probed_unit() {
  return {kUnit.isa, kUnit.arithmetic, [](const DeviceCaps& caps) { return kUnit.usable(caps); },
          [] { return probe_of(kUnit.kernels()); }};
}

template <class Args>
Support always(const Args&, const DeviceCaps&) {
  return Support::yes();
}

// Any format of activations and any weights: the first is rounded to, then multiplied in float32.
inline constexpr Impl<LinearArgs> kRoundedLinear = {
    .name = "rounded_first",
    .supports = rounded_supports,
    .run =
        [](const LinearArgs& args, ExecContext& context) {
          run_rounded({&args, 1}, context);
        },
    .run_together = run_rounded};

inline constexpr Impl<LinearArgs> kReferenceLinear = {"reference", always<LinearArgs>,
                                                      reference::linear};

}  // namespace nibble::cpu
