#include <algorithm>
#include <cstring>

#include "backends/cpu/drivers.h"
#include "backends/cpu/parts.h"
#include "backends/cpu/rounding.h"
#include "backends/cpu/scratch.h"
#include "backends/cpu/weight_view.h"

namespace nibble::cpu {
namespace {

// Widths that the gemv kernels read in place; others are decoded row by row first.
bool direct(const std::optional<WeightView>& view) {
  return view && (view->storage != Storage::kInt || view->bits == 4 || view->bits == 8);
}

// One linear by blocks. The packed activations are shared; each task owns a block of weight rows
// and decodes it once, so that the cost is spread over all m rows. Sums depend on the column blocks
// only, never on the number of threads.
class BlockedLinear {
 public:
  BlockedLinear(const KernelTable& kernels, const LinearArgs& args)
      : kernels_(kernels),
        args_(args),
        weight_(args.w->canonical),
        view_(weight_view(weight_)),
        depth_(round_up(ceil_div(weight_.cols, ceil_div(weight_.cols, kMaxDepth)), 16)),
        tile_stride_(round_up(weight_.cols * kernels.mr + kernels.lanes, kernels.lanes)) {}

  void run(ExecContext& context) {
    const std::int64_t step = round_up(kMaxRows, kernels_.mr);
    for (std::int64_t begin = 0; begin < args_.m; begin += step) {
      row_begin_ = begin;
      rows_ = std::min(step, args_.m - begin);
      pack_activations(context);
      const std::int64_t width = task_rows(weight_.rows, context.pool, kernels_.nr, kMaxWidth);
      context.pool.parallel_for(ceil_div(weight_.rows, width), 1,
                                [&](std::int64_t first, std::int64_t last) {
                                  for (std::int64_t i = first; i < last; ++i) {
                                    run_block(i * width, std::min((i + 1) * width, weight_.rows));
                                  }
                                });
    }
  }

 private:
  static constexpr std::int64_t kMaxDepth = 512;  // columns of a block: a tile of x fits in L1
  static constexpr std::int64_t kMaxWidth = 256;  // rows of a block: 512 KiB with kMaxDepth, in L2
  static constexpr std::int64_t kMaxRows = 2048;  // bounds the packed activations
  static constexpr std::int64_t kDecodeStep = 128;  // columns decoded at once: nr rows fit in L1

  void pack_activations(ExecContext& context) {
    thread_local Scratch scratch;
    const std::int64_t tiles = ceil_div(rows_, kernels_.mr);
    packed_ = scratch.floats(tiles * tile_stride_);
    context.pool.parallel_for(tiles, 4, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const std::int64_t row = i * kernels_.mr;
        kernels_.pack_tile(args_.x + (row_begin_ + row) * args_.x_stride, args_.x_stride,
                           std::min<std::int64_t>(kernels_.mr, rows_ - row), weight_.cols,
                           packed_ + i * tile_stride_);
      }
    });
  }

  void run_block(std::int64_t first, std::int64_t last) {
    thread_local Scratch scratch;
    const std::int64_t panel_stride = depth_ * kernels_.nr;
    float* panels = scratch.floats(ceil_div(last - first, kernels_.nr) * panel_stride);
    for (std::int64_t begin = 0; begin < weight_.cols; begin += depth_) {
      const std::int64_t count = std::min(depth_, weight_.cols - begin);
      for (std::int64_t row = first; row < last; row += kernels_.nr) {
        decode_panel(row, std::min<std::int64_t>(kernels_.nr, last - row), begin, count,
                     panels + (row - first) / kernels_.nr * panel_stride);
      }
      const bool first_block = begin == 0;
      kernels_.gemm({.a = packed_ + begin * kernels_.mr,
                     .a_tile_stride = tile_stride_,
                     .b = panels,
                     .b_panel_stride = panel_stride,
                     .m = rows_,
                     .n = last - first,
                     .k = count,
                     .bias = first_block && args_.bias != nullptr ? args_.bias + first : nullptr,
                     .c = args_.y + row_begin_ * args_.y_stride + first,
                     .c_stride = args_.y_stride,
                     .add = args_.accumulate || !first_block});
    }
  }

  void decode_panel(std::int64_t row, std::int64_t rows, std::int64_t begin, std::int64_t count,
                    float* panel) const {
    // The odd stride keeps the rows of a step in different cache sets.
    constexpr std::int64_t kStride = kDecodeStep + 16;
    constexpr std::int64_t kMaxPanel = 32;
    NIBBLE_CHECK(kernels_.nr <= kMaxPanel);
    alignas(64) float rows_of_step[kMaxPanel * kStride];
    for (std::int64_t k = 0; k < count; k += kDecodeStep) {
      const std::int64_t n = std::min(kDecodeStep, count - k);
      const std::int64_t padded = round_up(n, kernels_.lanes);
      for (std::int64_t r = 0; r < rows; ++r) {
        float* out = rows_of_step + r * kStride;
        decode(kernels_, view_, weight_, row + r, begin + k, n, out);
        std::fill(out + n, out + padded, 0.0f);
      }
      kernels_.pack_panel(rows_of_step, kStride, rows, n, panel + k * kernels_.nr);
    }
  }

  const KernelTable& kernels_;
  const LinearArgs& args_;
  const QuantTensor& weight_;
  const std::optional<WeightView> view_;
  const std::int64_t depth_;
  const std::int64_t tile_stride_;
  std::int64_t row_begin_ = 0;  // the rows of x in flight
  std::int64_t rows_ = 0;
  float* packed_ = nullptr;
};

// Rows of a task: enough bytes to be worth handing out, a multiple of what the kernel takes at
// once.
std::int64_t gemv_grain(std::int64_t row_bytes) {
  constexpr std::int64_t kTaskBytes = 32768;
  return round_up(std::max<std::int64_t>(1, kTaskBytes / std::max<std::int64_t>(1, row_bytes)), 8);
}

}  // namespace

Support gemv_fits(const KernelTable& kernels, const LinearArgs& args) {
  if (args.m <= kernels.gemv_rows) return Support::yes();
  return Support::no(fmt::format("more than {} rows", kernels.gemv_rows));
}

void run_gemv(const KernelTable& kernels, const LinearArgs& args, ExecContext& context) {
  const QuantTensor& weight = args.w->canonical;
  const std::optional<WeightView> view = weight_view(weight);
  const GemvTask whole = {.w = view.value_or(WeightView{}),
                          .x = args.x,
                          .x_stride = args.x_stride,
                          .m = args.m,
                          .bias = args.bias,
                          .y = args.y,
                          .y_stride = args.y_stride,
                          .add = args.accumulate};
  if (args.m == 0) return;
  if (direct(view)) {
    context.pool.parallel_for(weight.rows, gemv_grain(view->row_bytes),
                              [&](std::int64_t begin, std::int64_t end) {
                                GemvTask task = whole;
                                task.row_begin = begin;
                                task.row_end = end;
                                kernels.gemv(task);
                              });
    return;
  }
  constexpr std::int64_t kRows = 8;
  context.pool.parallel_for(weight.rows, kRows, [&](std::int64_t begin, std::int64_t end) {
    thread_local Scratch scratch;
    float* decoded = scratch.floats(kRows * weight.cols);
    for (std::int64_t row = begin; row < end; row += kRows) {
      const std::int64_t n = std::min(kRows, end - row);
      for (std::int64_t r = 0; r < n; ++r) {
        decode(kernels, view, weight, row + r, 0, weight.cols, decoded + r * weight.cols);
      }
      GemvTask task = whole;
      task.w = {.rows = n,
                .cols = weight.cols,
                .data = reinterpret_cast<const unsigned char*>(decoded),
                .row_bytes = weight.cols * 4,
                .group = weight.cols,
                .groups = 1};
      task.row_end = n;
      if (args.bias != nullptr) task.bias = args.bias + row;
      task.y = args.y + row;
      kernels.gemv(task);
    }
  });
}

Support blocked_fits(const KernelTable&, const LinearArgs&) { return Support::yes(); }

void run_blocked(const KernelTable& kernels, const LinearArgs& args, ExecContext& context) {
  BlockedLinear(kernels, args).run(context);
}

}  // namespace nibble::cpu
