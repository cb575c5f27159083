// Ops that work row by row: each driver hands rows to a kernel.
#include <algorithm>
#include <cmath>

#include "backends/cpu/drivers.h"
#include "backends/cpu/kv_storage.h"
#include "backends/cpu/scratch.h"

namespace nibble::cpu {
namespace {

static_assert(static_cast<int>(ActivationKind::kIdentity) ==
              static_cast<int>(Activation::kIdentity));
static_assert(static_cast<int>(ActivationKind::kGelu) == static_cast<int>(Activation::kGelu));
static_assert(static_cast<int>(ActivationKind::kTanh) == static_cast<int>(Activation::kTanh));

// Rows of a task, so that one is worth handing to another thread.
std::int64_t row_grain(std::int64_t cols) {
  constexpr std::int64_t kTaskElements = 4096;
  return std::max<std::int64_t>(1, kTaskElements / std::max<std::int64_t>(1, cols));
}

}  // namespace

Support norm_fits(const KernelTable&, const NormArgs&) { return Support::yes(); }

void run_norm(const KernelTable& kernels, const NormArgs& args, ExecContext& context) {
  const bool layer = args.kind == NormKind::kLayer;
  const NormTask task = {.layer = layer,
                         .cols = args.cols,
                         .weight = args.weight,
                         .bias = layer ? args.bias : nullptr,
                         .weight_offset = args.weight_offset,
                         .eps = args.eps};
  context.pool.parallel_for(
      args.rows, row_grain(args.cols), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          kernels.norm(task, args.x + r * args.x_stride, args.y + r * args.y_stride);
        }
      });
}

Support rope_fits(const KernelTable& kernels, const RopeArgs& args) {
  constexpr float kMaxAngle = 1048576;  // the range reduction holds up to 2^20
  if (kernels.rope == nullptr) return Support::no("needs a fused multiply-add");
  std::int32_t farthest = 0;
  for (const std::int32_t position : args.positions) farthest = std::max(farthest, position);
  float fastest = 0;
  for (const float f : args.inv_freq) fastest = std::max(fastest, std::abs(f));
  if (static_cast<float>(farthest) * fastest > kMaxAngle) return Support::no("angle beyond 2^20");
  return Support::yes();
}

void run_rope(const KernelTable& kernels, const RopeArgs& args, ExecContext& context) {
  const std::int64_t grain = row_grain(args.heads * args.rotary_dim);
  context.pool.parallel_for(args.rows, grain, [&](std::int64_t begin, std::int64_t end) {
    thread_local Scratch scratch;
    RopeTask task = {.head_stride = args.x.head_stride,
                     .heads = args.heads,
                     .half = args.rotary_dim / 2,
                     .interleaved = args.interleaved,
                     .inv_freq = args.inv_freq.data(),
                     .scale = args.scale,
                     .scratch = scratch.floats(args.rotary_dim)};
    for (std::int64_t t = begin; t < end; ++t) {
      task.x = args.x.data + t * args.x.row_stride;
      task.position = static_cast<float>(args.positions[static_cast<std::size_t>(t)]);
      kernels.rope(task);
    }
  });
}

Support hadamard_fits(const KernelTable&, const HadamardArgs&) { return Support::yes(); }

void run_hadamard(const KernelTable& kernels, const HadamardArgs& args, ExecContext& context) {
  context.pool.parallel_for(args.rows, row_grain(args.cols),
                            [&](std::int64_t begin, std::int64_t end) {
                              for (std::int64_t r = begin; r < end; ++r)
                                kernels.hadamard(args.x + r * args.cols, args.cols);
                            });
}

Support activation_fits(const KernelTable&, const ActivationArgs& args) {
  const bool plain = args.limit <= 0 && args.multiplier_offset == 0;
  return plain ? Support::yes() : Support::no("values are limited or the multiplier is shifted");
}

void run_activation(const KernelTable& kernels, const ActivationArgs& args, ExecContext& context) {
  const auto kind = static_cast<ActivationKind>(args.kind);
  context.pool.parallel_for(
      args.rows, row_grain(args.cols), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const float* multiplier =
              args.multiplier == nullptr ? nullptr : args.multiplier + r * args.multiplier_stride;
          kernels.activate(kind, args.softcap, args.x + r * args.x_stride, multiplier, args.cols,
                           args.y + r * args.y_stride);
        }
      });
}

Support add_fits(const KernelTable&, const AddArgs&) { return Support::yes(); }

void run_add(const KernelTable& kernels, const AddArgs& args, ExecContext& context) {
  context.pool.parallel_for(args.count, 16384, [&](std::int64_t begin, std::int64_t end) {
    kernels.add(args.scale, args.x + begin, end - begin, args.y + begin);
  });
}

Support kv_write_fits(const KernelTable& kernels, const KvWriteArgs& args) {
  return args.rope == nullptr ? Support::yes() : rope_fits(kernels, *args.rope);
}

namespace {

// One row of keys or of values of a sequence, all heads.
template <class T>
void encode_row(const KernelTable& kernels, const KvWriteArgs& args, const HeadView<T>& x,
                std::int64_t row, const HeadView<void>& cache, std::int64_t t) {
  const KvStorage type = kv_storage(args.type);
  auto* const to = static_cast<unsigned char*>(cache.data) + t * cache.row_stride;
  for (std::int64_t h = 0; h < args.heads; ++h) {
    kernels.kv_encode(x.data + row * x.row_stride + h * x.head_stride, args.head_dim, type,
                      to + h * cache.head_stride);
  }
}

}  // namespace

void run_kv_write(const KernelTable& kernels, const KvWriteArgs& args, ExecContext& context) {
  if (args.rope != nullptr) {
    run_rope(kernels, *args.rope, context);
    run_rope(kernels, rope_of_keys(args), context);
  }
  const std::int64_t grain = row_grain(2 * args.heads * args.head_dim);
  for (const KvWriteSequence& s : args.sequences) {
    context.pool.parallel_for(s.rows, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        encode_row(kernels, args, args.k, s.begin + t, s.k, t);
        encode_row(kernels, args, args.v, s.begin + t, s.v, t);
      }
    });
  }
}

}  // namespace nibble::cpu
