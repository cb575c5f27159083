// Linear by products of bf16: activations are rounded to bf16. Weights of bf16 stay where they are
// mapped; integers come from the panels of byte products.
#include <algorithm>

#include "backends/cpu/bf16_kernels.h"
#include "backends/cpu/drivers.h"
#include "backends/cpu/panel_weight.h"
#include "backends/cpu/scratch.h"
#include "backends/cpu/weight_view.h"

namespace nibble::cpu {
namespace {

constexpr std::int64_t kMaxRows = 1024;  // activations rounded at once
constexpr std::int64_t kWidth = 256;     // weight rows of a block: panels fit into L2

std::int64_t round_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

// Activations in bf16, [m rounded up to kBf16TileRows, cols rounded up to kBf16Step].
struct Bf16Rows {
  std::uint16_t* x = nullptr;
  std::int64_t stride = 0;
};

Bf16Rows narrow_rows(const Bf16Kernels& kernels, const LinearArgs& args, std::int64_t begin,
                     std::int64_t m, ThreadPool& pool) {
  thread_local Scratch scratch;
  const std::int64_t cols = args.w->canonical.cols;
  // Rows a power of two apart would compete for the same sets of the caches.
  Bf16Rows rows;
  rows.stride = round_up(cols, kBf16Step) + kBf16Step;
  rows.x = reinterpret_cast<std::uint16_t*>(
      scratch.floats(round_up(m, kBf16TileRows) * rows.stride / 2));
  pool.parallel_for(m, 16, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      kernels.narrow(args.x + (begin + i) * args.x_stride, cols, rows.x + i * rows.stride);
    }
  });
  return rows;
}

void run_direct(const Bf16Kernels& kernels, const LinearArgs& args, const WeightView& w,
                ThreadPool& pool) {
  constexpr std::int64_t kTaskBytes = 32768;
  const Bf16Rows rows = narrow_rows(kernels, args, 0, args.m, pool);
  const Bf16DirectTask whole = {.w = w.data,
                                .row_bytes = w.row_bytes,
                                .cols = w.cols,
                                .x = rows.x,
                                .x_stride = rows.stride,
                                .m = args.m,
                                .bias = args.bias,
                                .y = args.y,
                                .y_stride = args.y_stride,
                                .add = args.accumulate};
  const std::int64_t grain = std::max<std::int64_t>(1, kTaskBytes / w.row_bytes);
  pool.parallel_for(w.rows, grain, [&](std::int64_t begin, std::int64_t end) {
    Bf16DirectTask task = whole;
    task.row_begin = begin;
    task.row_end = end;
    kernels.direct(task);
  });
}

// Many activation rows: each task owns a block of weight rows, which it brings into panels of bf16
// once a call, some columns after the other.
class Bf16Blocked {
 public:
  Bf16Blocked(const Bf16Kernels& kernels, const LinearArgs& args)
      : kernels_(kernels),
        args_(args),
        rows_(args.w->canonical.rows),
        cols_(args.w->canonical.cols),
        integers_(panels_of(args)) {
    if (integers_ == nullptr) floats_ = weight_view(args.w->canonical).value();
  }

  void run(ThreadPool& pool) {
    // Narrow enough for four tasks a thread, wide enough that reading x again is cheap.
    const std::int64_t fair = round_up(rows_ / (4 * pool.threads()), kBf16PanelRows);
    const std::int64_t width = std::clamp(fair, kBf16PanelRows, kWidth);
    for (std::int64_t begin = 0; begin < args_.m; begin += kMaxRows) {
      const std::int64_t m = std::min(kMaxRows, args_.m - begin);
      const Bf16Rows x = narrow_rows(kernels_, args_, begin, m, pool);
      const Bf16GemmTask whole = {.a = x.x,
                                  .a_stride = x.stride,
                                  .m = m,
                                  .c = args_.y + begin * args_.y_stride,
                                  .c_stride = args_.y_stride};
      pool.parallel_for((rows_ + width - 1) / width, 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i) {
          run_block(whole, i * width, std::min((i + 1) * width, rows_));
        }
      });
    }
  }

 private:
  void run_block(const Bf16GemmTask& whole, std::int64_t first, std::int64_t last) const {
    thread_local Scratch scratch;
    const std::int64_t panel_pairs = kernels_.depth / 2 * kBf16PanelRows;
    auto* panels = reinterpret_cast<std::uint32_t*>(
        scratch.floats(round_up(last - first, kBf16PanelRows) / kBf16PanelRows * panel_pairs));
    Bf16GemmTask task = whole;
    task.b = panels;
    task.b_panel_stride = panel_pairs;
    task.n = last - first;
    task.c += first;
    for (std::int64_t begin = 0; begin < cols_; begin += kernels_.depth) {
      const std::int64_t count = std::min(kernels_.depth, cols_ - begin);
      for (std::int64_t row = first; row < last; row += kBf16PanelRows) {
        fill_panel(row, begin, count, panels + (row - first) / kBf16PanelRows * panel_pairs);
      }
      task.a = whole.a + begin;
      task.k = round_up(count, kBf16Step);
      task.bias = begin == 0 && args_.bias != nullptr ? args_.bias + first : nullptr;
      task.add = args_.accumulate || begin > 0;
      kernels_.gemm(task);
    }
  }

  void fill_panel(std::int64_t row, std::int64_t begin, std::int64_t count,
                  std::uint32_t* panel) const {
    if (integers_ != nullptr) {
      kernels_.unpack(integers_->view(), row / kPanelRows, begin, count, panel);
    } else {
      kernels_.pack(floats_.data + row * floats_.row_bytes + 2 * begin, floats_.row_bytes,
                    std::min(kBf16PanelRows, rows_ - row), count, panel);
    }
  }

  const Bf16Kernels& kernels_;
  const LinearArgs& args_;
  const std::int64_t rows_;
  const std::int64_t cols_;
  const PanelWeight* integers_;
  WeightView floats_;  // when there are no panels
};

}  // namespace

Support bf16_fits(const Bf16Kernels& kernels, const LinearArgs& args) {
  if (panels_of(args) != nullptr) {
    if (kernels.unpack == nullptr) return Support::no("integers are multiplied as bytes");
    if (args.m >= kernels.unpack_min_rows) return Support::yes();
    return Support::no(fmt::format("fewer than {} rows", kernels.unpack_min_rows));
  }
  const std::optional<WeightView> view = weight_view(args.w->canonical);
  if (view && view->storage == Storage::kBF16) return Support::yes();
  return Support::no("the weight is neither bf16 nor in panels of integers");
}

void run_bf16(const Bf16Kernels& kernels, const LinearArgs& args, ExecContext& context) {
  if (args.m <= kernels.direct_rows && panels_of(args) == nullptr) {
    run_direct(kernels, args, weight_view(args.w->canonical).value(), context.pool);
  } else {
    Bf16Blocked(kernels, args).run(context.pool);
  }
}

}  // namespace nibble::cpu
