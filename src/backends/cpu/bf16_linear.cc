// Linear by products of bf16: activations are rounded to bf16. Weights of bf16 stay where they are
// mapped; integers come from the panels of byte products.
#include <algorithm>

#include "backends/cpu/bf16_kernels.h"
#include "backends/cpu/drivers.h"
#include "backends/cpu/panel_weight.h"
#include "backends/cpu/parts.h"
#include "backends/cpu/rounding.h"
#include "backends/cpu/scratch.h"
#include "backends/cpu/weight_view.h"

namespace nibble::cpu {
namespace {

constexpr std::int64_t kMaxRows = 1024;  // activations rounded at once
constexpr std::int64_t kWidth = 128;     // weight rows of a block: two, packed and not, fit into L2

// Activations in bf16, [m rounded up to kBf16TileRows, cols rounded up to kBf16Step].
struct Bf16Rows {
  std::uint16_t* x = nullptr;
  std::int64_t stride = 0;
};

Bf16Rows narrow_rows(const Bf16Kernels& kernels, const LinearArgs& input, std::int64_t begin,
                     std::int64_t m, ThreadPool& pool) {
  thread_local Scratch scratch;
  const std::int64_t cols = input.w->canonical.cols;
  // Rows a power of two apart would compete for the same sets of the caches.
  Bf16Rows rows;
  rows.stride = round_up(cols, kBf16Step) + kBf16Step;
  rows.x = reinterpret_cast<std::uint16_t*>(
      scratch.floats(round_up(m, kBf16TileRows) * rows.stride / 2));
  pool.parallel_for(m, 16, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      kernels.narrow(input.x + (begin + i) * input.x_stride, cols, rows.x + i * rows.stride);
    }
  });
  return rows;
}

void run_direct(const Bf16Kernels& kernels, std::span<const LinearArgs> calls, ThreadPool& pool) {
  constexpr std::int64_t kTaskBytes = 32768;
  const Bf16Rows x = narrow_rows(kernels, calls.front(), 0, calls.front().m, pool);
  const std::int64_t step =
      std::max<std::int64_t>(1, kTaskBytes / (2 * calls.front().w->canonical.cols));
  std::vector<Bf16DirectTask> tasks;
  std::vector<std::int64_t> steps;
  for (const LinearArgs& call : calls) {
    const WeightView w = weight_view(call.w->canonical).value();
    tasks.push_back({.w = w.data,
                     .row_bytes = w.row_bytes,
                     .cols = w.cols,
                     .row_end = w.rows,
                     .x = x.x,
                     .x_stride = x.stride,
                     .m = call.m,
                     .bias = call.bias,
                     .y = call.y,
                     .y_stride = call.y_stride,
                     .add = call.accumulate});
    steps.push_back(ceil_div(w.rows, step));
  }
  parallel_for_parts(pool, steps, [&](std::size_t part, std::int64_t first, std::int64_t last) {
    Bf16DirectTask task = tasks[part];
    task.row_begin = first * step;
    task.row_end = std::min(last * step, task.row_end);
    kernels.direct(task);
  });
}

// The weight of one call as panels of bf16, a block of columns at a time.
class PanelSource {
 public:
  PanelSource(const Bf16Kernels& kernels, const LinearArgs& call)
      : kernels_(kernels), rows_(call.w->canonical.rows), integers_(panels_of(call)) {
    if (integers_ == nullptr) floats_ = weight_view(call.w->canonical).value();
  }

  // The bytes that fill() reads for rows [first, last); nothing for panels, which are one stream.
  ReadAhead bytes(std::int64_t first, std::int64_t last, std::int64_t begin,
                  std::int64_t count) const {
    if (integers_ != nullptr) return {};
    return {floats_.data + first * floats_.row_bytes + 2 * begin, floats_.row_bytes,
            std::min(last, rows_) - first, 2 * count};
  }

  void fill(std::int64_t row, std::int64_t begin, std::int64_t count, std::uint32_t* panel) const {
    if (integers_ != nullptr) {
      kernels_.unpack(integers_->view(), row / kPanelRows, begin, count, panel);
    } else {
      kernels_.pack(floats_.data + row * floats_.row_bytes + 2 * begin, floats_.row_bytes,
                    std::min(kBf16PanelRows, rows_ - row), count, panel);
    }
  }

 private:
  const Bf16Kernels& kernels_;
  const std::int64_t rows_;
  const PanelWeight* integers_;
  WeightView floats_;  // when there are no panels
};

// One call of a product of many rows, cut into blocks of weight rows.
class BlockedCall {
 public:
  // x: rows [row_begin, row_begin + m) of the call's input.
  BlockedCall(const Bf16Kernels& kernels, const LinearArgs& call, const Bf16Rows& x,
              std::int64_t row_begin, std::int64_t m)
      : kernels_(kernels),
        call_(call),
        source_(kernels, call),
        x_(x),
        row_begin_(row_begin),
        m_(m),
        cols_(call.w->canonical.cols) {}

  // Weight rows [first, last); those of the next block will be read after them.
  void run(std::int64_t first, std::int64_t last) const {
    thread_local Scratch scratch;
    const std::int64_t panel_pairs = kernels_.depth / 2 * kBf16PanelRows;
    auto* panels = reinterpret_cast<std::uint32_t*>(
        scratch.floats(ceil_div(last - first, kBf16PanelRows) * panel_pairs));
    for (std::int64_t begin = 0; begin < cols_; begin += kernels_.depth) {
      const std::int64_t count = std::min(kernels_.depth, cols_ - begin);
      for (std::int64_t row = first; row < last; row += kBf16PanelRows) {
        source_.fill(row, begin, count, panels + (row - first) / kBf16PanelRows * panel_pairs);
      }
      kernels_.gemm({.a = x_.x + begin,
                     .a_stride = x_.stride,
                     .b = panels,
                     .b_panel_stride = panel_pairs,
                     .m = m_,
                     .n = last - first,
                     .k = round_up(count, kBf16Step),
                     .bias = begin == 0 && call_.bias != nullptr ? call_.bias + first : nullptr,
                     .c = call_.y + row_begin_ * call_.y_stride + first,
                     .c_stride = call_.y_stride,
                     .add = call_.accumulate || begin > 0,
                     .ahead = next(first, last, begin + count)});
    }
  }

 private:
  ReadAhead next(std::int64_t first, std::int64_t last, std::int64_t begin) const {
    if (begin < cols_) {
      return source_.bytes(first, last, begin, std::min(kernels_.depth, cols_ - begin));
    }
    if (last >= call_.w->canonical.rows) return {};
    return source_.bytes(last, 2 * last - first, 0, std::min(kernels_.depth, cols_));
  }

  const Bf16Kernels& kernels_;
  const LinearArgs& call_;
  const PanelSource source_;
  const Bf16Rows x_;
  const std::int64_t row_begin_;
  const std::int64_t m_;
  const std::int64_t cols_;
};

// Many activation rows: each task owns a block of weight rows.
void run_blocks(const Bf16Kernels& kernels, std::span<const LinearArgs> calls, ThreadPool& pool) {
  std::int64_t rows = 0;
  for (const LinearArgs& call : calls) rows += call.w->canonical.rows;
  const std::int64_t width = task_rows(rows, pool, kBf16PanelRows, kWidth);
  std::vector<std::int64_t> blocks;
  for (const LinearArgs& call : calls) {
    blocks.push_back(ceil_div(call.w->canonical.rows, width));
  }
  const std::int64_t total = calls.front().m;
  for (std::int64_t begin = 0; begin < total; begin += kMaxRows) {
    const std::int64_t m = std::min(kMaxRows, total - begin);
    const Bf16Rows x = narrow_rows(kernels, calls.front(), begin, m, pool);
    parallel_for_parts(pool, blocks, [&](std::size_t part, std::int64_t first, std::int64_t last) {
      const BlockedCall call(kernels, calls[part], x, begin, m);
      const std::int64_t end = calls[part].w->canonical.rows;
      for (std::int64_t i = first; i < last; ++i) {
        call.run(i * width, std::min((i + 1) * width, end));
      }
    });
  }
}

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

void run_bf16(const Bf16Kernels& kernels, std::span<const LinearArgs> calls, ExecContext& context) {
  if (calls.front().m <= kernels.direct_rows) {
    run_direct(kernels, calls, context.pool);
  } else {
    run_blocks(kernels, calls, context.pool);
  }
}

}  // namespace nibble::cpu
