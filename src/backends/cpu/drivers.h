// The host side of the CPU implementations: they cut an op into tasks for the kernels of a level.
#pragma once

#include <array>

#include "backends/cpu/bf16_kernels.h"
#include "backends/cpu/int8_kernels.h"
#include "backends/cpu/kernel_table.h"
#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cpu {

// The kernels of the best level that the machine has.
const KernelTable& best_level(const DeviceCaps& caps);

// Linear by dot products with the stored weights, for few activation rows.
Support gemv_fits(const KernelTable& kernels, const LinearArgs& args);
void run_gemv(const KernelTable& kernels, const LinearArgs& args, ExecContext& context);

// Linear by blocks: weights are decoded once a call into packed float32 panels.
Support blocked_fits(const KernelTable& kernels, const LinearArgs& args);
void run_blocked(const KernelTable& kernels, const LinearArgs& args, ExecContext& context);

// Linear of few rows on weights of tables in panels.
Support table_panels_fit(const KernelTable& kernels, const LinearArgs& args);
void run_table_panels(const KernelTable& kernels, const LinearArgs& args, ExecContext& context);

// Linear on byte codes, with activations rounded to bytes by block. The calls have one input.
Support int8_fits(const Int8Kernels& kernels, const LinearArgs& args);
void run_int8(const Int8Kernels& kernels, std::span<const LinearArgs> calls, ExecContext& context);

// Linear on byte codes of rows that a format of activations makes: integers, symmetric, by token.
// The calls have one input.
Support token_fits(const TokenKernels& kernels, const LinearArgs& args);
void run_token(const TokenKernels& kernels, std::span<const LinearArgs> calls,
               ExecContext& context);

// Linear by products of bf16, with activations rounded to bf16. The calls have one input.
Support bf16_fits(const Bf16Kernels& kernels, const LinearArgs& args);
void run_bf16(const Bf16Kernels& kernels, std::span<const LinearArgs> calls, ExecContext& context);

// Linear of few rows, rounded to bf16, with blocks as they are. The calls have one input.
Support bf16_blocks_fit(const Bf16Kernels& kernels, const LinearArgs& args);
void run_bf16_blocks(const Bf16Kernels& kernels, std::span<const LinearArgs> calls,
                     ExecContext& context);

// Linear on super-blocks in panels, with activations rounded to signed bytes by block. The calls
// have one input.
Support block_panels_fit(const Int8Kernels& kernels, const LinearArgs& args);
void run_block_panels(const Int8Kernels& kernels, std::span<const LinearArgs> calls,
                      ExecContext& context);

// Linear of rows that are rounded to a format of activations first: by blocks, at the best level of
// the machine, whatever their number. The calls have one input.
Support rounded_supports(const LinearArgs& args, const DeviceCaps& caps);
void run_rounded(std::span<const LinearArgs> calls, ExecContext& context);

Support attention_fits(const KernelTable& kernels, const AttentionArgs& args);
void run_attention(const KernelTable& kernels, const AttentionArgs& args, ExecContext& context);

// The kernels of an implementation of attention: beside those of its level other tiles, and other
// rows, of which the first that fits a task takes it (null: none).
struct AttentionChoice {
  const KernelTable& level;
  const AttentionTiles& tiles;
  std::array<const AttentionRows*, 2> rows = {};
};
void run_attention_by(const AttentionChoice& choice, const AttentionArgs& args,
                      ExecContext& context);

// By kernels that round queries and their weights: to bf16 over keys and values of bf16 or codes,
// or to bytes over codes.
Support pair_attention_fits(const Bf16Kernels& kernels, const AttentionArgs& args);
Support code_attention_fits(const Int8Kernels& kernels, const AttentionArgs& args);

Support norm_fits(const KernelTable& kernels, const NormArgs& args);
void run_norm(const KernelTable& kernels, const NormArgs& args, ExecContext& context);

Support rope_fits(const KernelTable& kernels, const RopeArgs& args);
void run_rope(const KernelTable& kernels, const RopeArgs& args, ExecContext& context);

Support hadamard_fits(const KernelTable& kernels, const HadamardArgs& args);
void run_hadamard(const KernelTable& kernels, const HadamardArgs& args, ExecContext& context);

Support activation_fits(const KernelTable& kernels, const ActivationArgs& args);
void run_activation(const KernelTable& kernels, const ActivationArgs& args, ExecContext& context);

Support add_fits(const KernelTable& kernels, const AddArgs& args);
void run_add(const KernelTable& kernels, const AddArgs& args, ExecContext& context);

Support kv_write_fits(const KernelTable& kernels, const KvWriteArgs& args);
void run_kv_write(const KernelTable& kernels, const KvWriteArgs& args, ExecContext& context);

}  // namespace nibble::cpu
