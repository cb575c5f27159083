// Linear by products of bf16: activations are rounded to bf16. Weights of bf16 stay where they are
// mapped; integers come from the panels of byte products; blocks are decoded, and rounded to bf16,
// a panel at a time.
#include <algorithm>
#include <array>

#include "backends/cpu/bf16_kernels.h"
#include "backends/cpu/drivers.h"
#include "backends/cpu/panel_weight.h"
#include "backends/cpu/parts.h"
#include "backends/cpu/rounding.h"
#include "backends/cpu/scratch.h"
#include "backends/cpu/weight_view.h"
#include "base/half.h"

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

// What tasks of few rows have in common, for rows of one weight.
template <class Task>
Task few_rows_task(const LinearArgs& call, const Bf16Rows& x) {
  Task task;
  task.row_end = call.w->canonical.rows;
  task.x = x.x;
  task.x_stride = x.stride;
  task.m = call.m;
  task.bias = call.bias;
  task.y = call.y;
  task.y_stride = call.y_stride;
  task.add = call.accumulate;
  return task;
}

// run(task) for some rows of every task at a time, about as many bytes as are worth handing out.
template <class Task, class Run>
void run_few_rows(std::span<const Task> tasks, std::int64_t row_bytes, ThreadPool& pool,
                  const Run& run) {
  constexpr std::int64_t kTaskBytes = 32768;
  const std::int64_t step = std::max<std::int64_t>(1, kTaskBytes / row_bytes);
  std::vector<std::int64_t> steps;
  for (const Task& task : tasks) steps.push_back(ceil_div(task.row_end, step));
  parallel_for_parts(pool, steps, [&](std::size_t part, std::int64_t first, std::int64_t last) {
    Task task = tasks[part];
    task.row_begin = first * step;
    task.row_end = std::min(last * step, task.row_end);
    run(task);
  });
}

void run_direct(const Bf16Kernels& kernels, std::span<const LinearArgs> calls, ThreadPool& pool) {
  const Bf16Rows x = narrow_rows(kernels, calls.front(), 0, calls.front().m, pool);
  std::vector<Bf16DirectTask> tasks;
  for (const LinearArgs& call : calls) {
    const WeightView w = weight_view(call.w->canonical).value();
    tasks.push_back(few_rows_task<Bf16DirectTask>(call, x));
    tasks.back().w = w.data;
    tasks.back().row_bytes = w.row_bytes;
    tasks.back().cols = w.cols;
  }
  run_few_rows<Bf16DirectTask>(tasks, 2 * calls.front().w->canonical.cols, pool, kernels.direct);
}

// Sums over runs of `run` columns of every row of x, in rows of cols / run.
const float* sums_of_runs(const Bf16Rows& x, std::int64_t m, std::int64_t cols, std::int64_t run,
                          Scratch& scratch) {
  float* const sums = scratch.floats(m * (cols / run));
  for (std::int64_t i = 0; i < m * (cols / run); ++i) {
    const std::uint16_t* values = x.x + i / (cols / run) * x.stride + i % (cols / run) * run;
    float sum = 0;
    for (std::int64_t k = 0; k < run; ++k) sum += to_float(bf16{values[k]});
    sums[i] = sum;
  }
  return sums;
}

// The weight of one call as panels of bf16, a block of columns at a time.
class PanelSource {
 public:
  // level: the kernels that decode blocks.
  PanelSource(const Bf16Kernels& kernels, const KernelTable& level, const LinearArgs& call)
      : kernels_(kernels),
        level_(level),
        rows_(call.w->canonical.rows),
        integers_(panels_of(call)) {
    if (integers_ == nullptr) stored_ = weight_view(call.w->canonical).value();
  }

  // The bytes that fill() reads for rows [first, last); nothing for panels, which are one stream.
  ReadAhead bytes(std::int64_t first, std::int64_t last, std::int64_t begin,
                  std::int64_t count) const {
    if (integers_ != nullptr) return {};
    const auto byte_of = [&](std::int64_t column) {
      return column * stored_.row_bytes / stored_.cols;
    };
    return {stored_.data + first * stored_.row_bytes + byte_of(begin), stored_.row_bytes,
            std::min(last, rows_) - first, byte_of(begin + count) - byte_of(begin)};
  }

  void fill(std::int64_t row, std::int64_t begin, std::int64_t count, std::uint32_t* panel) const {
    if (integers_ != nullptr) {
      kernels_.unpack(integers_->view(), row / kPanelRows, begin, count, panel);
      return;
    }
    const std::int64_t rows = std::min(kBf16PanelRows, rows_ - row);
    if (stored_.storage == Storage::kBlock) {
      fill_from_blocks(row, rows, begin, count, panel);
    } else {
      kernels_.pack(stored_.data + row * stored_.row_bytes + 2 * begin, stored_.row_bytes, rows,
                    count, panel);
    }
  }

 private:
  // Some columns at a time, so that they stay in the first-level cache until they are in the panel.
  void fill_from_blocks(std::int64_t row, std::int64_t rows, std::int64_t begin, std::int64_t count,
                        std::uint32_t* panel) const {
    constexpr std::int64_t kColumns = 256;
    constexpr std::int64_t kStride = kColumns + kBf16Step;  // the odd one of panels of floats
    float values[kColumns];
    alignas(64) std::uint16_t narrow[kBf16PanelRows * kStride];
    for (std::int64_t k = 0; k < count; k += kColumns) {
      const std::int64_t n = std::min(kColumns, count - k);
      for (std::int64_t r = 0; r < rows; ++r) {
        level_.decode_row(stored_, row + r, begin + k, n, values);
        kernels_.narrow(values, n, narrow + r * kStride);
      }
      kernels_.pack(reinterpret_cast<const unsigned char*>(narrow), 2 * kStride, rows, n,
                    panel + k / 2 * kBf16PanelRows);
    }
  }

  const Bf16Kernels& kernels_;
  const KernelTable& level_;
  const std::int64_t rows_;
  const PanelWeight* integers_;
  WeightView stored_;  // when there are no panels
};

// One call of a product of many rows, cut into blocks of weight rows.
class BlockedCall {
 public:
  // x: rows [row_begin, row_begin + m) of the call's input.
  BlockedCall(const Bf16Kernels& kernels, const KernelTable& level, const LinearArgs& call,
              const Bf16Rows& x, std::int64_t row_begin, std::int64_t m)
      : kernels_(kernels),
        call_(call),
        source_(kernels, level, call),
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
void run_blocks(const Bf16Kernels& kernels, std::span<const LinearArgs> calls,
                ExecContext& context) {
  ThreadPool& pool = context.pool;
  const KernelTable& level = best_level(context.caps);
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
      const BlockedCall call(kernels, level, calls[part], x, begin, m);
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
  if (!view || view->storage != Storage::kBlock) {
    return Support::no("the weight is neither bf16, blocks nor in panels of integers");
  }
  // Neighbours of few rows are multiplied in place.
  if (args.m > kernels.direct_rows) return Support::yes();
  return Support::no(fmt::format("at most {} rows", kernels.direct_rows));
}

void run_bf16(const Bf16Kernels& kernels, std::span<const LinearArgs> calls, ExecContext& context) {
  if (calls.front().m <= kernels.direct_rows) {
    run_direct(kernels, calls, context.pool);
  } else {
    run_blocks(kernels, calls, context);
  }
}

Support bf16_blocks_fit(const Bf16Kernels& kernels, const LinearArgs& args) {
  if (panels_of(args) != nullptr) return Support::no("integers are multiplied as bytes");
  const std::optional<WeightView> view = weight_view(args.w->canonical);
  // (Bytes are no codes that a table has, and kernels of floats read them at the speed of memory.)
  if (!view || view->storage != Storage::kBlock || view->block == BlockStorage::kQ8_0) {
    return Support::no("the weight is not in blocks of codes");
  }
  if (args.m <= kernels.direct_rows) return Support::yes();
  return Support::no(fmt::format("more than {} rows", kernels.direct_rows));
}

void run_bf16_blocks(const Bf16Kernels& kernels, std::span<const LinearArgs> calls,
                     ExecContext& context) {
  thread_local std::array<Scratch, 2> scratch;  // of both lengths of runs
  const LinearArgs& input = calls.front();
  const std::int64_t cols = input.w->canonical.cols;
  const Bf16Rows x = narrow_rows(kernels, input, 0, input.m, context.pool);
  std::array<const float*, 2> sums = {};
  std::vector<Bf16BlocksTask> tasks;
  std::int64_t row_bytes = 0;
  for (const LinearArgs& call : calls) {
    tasks.push_back(few_rows_task<Bf16BlocksTask>(call, x));
    Bf16BlocksTask& task = tasks.back();
    task.w = weight_view(call.w->canonical).value();
    row_bytes = std::max(row_bytes, task.w.row_bytes);
    const std::int64_t run = kernels.minimum_run(task.w.block);
    if (run == 0) continue;
    const std::size_t which = run == 32 ? 1 : 0;
    if (sums[which] == nullptr) sums[which] = sums_of_runs(x, input.m, cols, run, scratch[which]);
    task.sums = sums[which];
    task.sums_stride = cols / run;
  }
  run_few_rows<Bf16BlocksTask>(tasks, row_bytes, context.pool, kernels.blocks);
}

}  // namespace nibble::cpu
