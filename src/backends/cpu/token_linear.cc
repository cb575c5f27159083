// Linear on byte codes of rows that a format of activations makes.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cpu/drivers.h"
#include "backends/cpu/int8_kernels.h"
#include "backends/cpu/panel_weight.h"
#include "backends/cpu/parts.h"
#include "backends/cpu/scratch.h"

namespace nibble::cpu {
namespace {

constexpr std::int64_t kMaxRows = 512;  // rounded activations at once: they stay in the caches

// Rounded rows of a call.
struct TokenRows {
  unsigned char* q = nullptr;
  std::int64_t stride = 0;
  float* scale = nullptr;
};

TokenRows allocate_rows(std::int64_t m, std::int64_t cols) {
  thread_local Scratch bytes;
  thread_local Scratch scales;
  TokenRows rows;
  rows.stride = cols + 64;  // a power of two would put rows into the same sets of the caches
  rows.q = reinterpret_cast<unsigned char*>(bytes.floats(token_rows(m) * rows.stride / 4));
  rows.scale = scales.floats(m);
  return rows;
}

// Row x without what reaches the threshold of outliers.
const float* without_outliers(const float* x, std::int64_t cols, float threshold) {
  thread_local Scratch scratch;
  float* const kept = scratch.floats(cols);
  for (std::int64_t k = 0; k < cols; ++k) kept[k] = std::abs(x[k]) >= threshold ? 0.0f : x[k];
  return kept;
}

void round_row(const TokenKernels& kernels, const ActivationFormat& format,
               const std::vector<std::int32_t>& outliers, const float* x, std::int64_t cols,
               unsigned char* q, float* scale) {
  const ActivationDescriptor& descriptor = format.descriptor();
  const float most = static_cast<float>((1 << (descriptor.element.bits - 1)) - 1);
  if (!outliers.empty()) x = without_outliers(x, cols, descriptor.outlier_threshold);
  *scale = kernels.quantize(x, cols, most, q);
  for (const std::int32_t col : outliers) q[col] = static_cast<unsigned char>(kernels.raised);
}

// The sums of the rows' q by group, for weights that have zero points of bytes.
class GroupSums {
 public:
  GroupSums(const TokenKernels& kernels, const PanelView& w, const TokenRows& rows, std::int64_t m,
            ThreadPool& pool) {
    if (w.nibbles || w.zeros == nullptr) return;
    sums_.resize(static_cast<std::size_t>(m * w.groups));
    pool.parallel_for(m, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin * w.groups; i < end * w.groups; ++i) {
        const unsigned char* const q = rows.q + i / w.groups * rows.stride + i % w.groups * w.group;
        sums_[static_cast<std::size_t>(i)] = sum_of(kernels, q, w.group);
      }
    });
  }

  const float* data() const { return sums_.empty() ? nullptr : sums_.data(); }

 private:
  static float sum_of(const TokenKernels& kernels, const unsigned char* q, std::int64_t count) {
    std::int64_t sum = 0;
    for (std::int64_t k = 0; k < count; ++k) {
      sum += kernels.raised != 0 ? q[k] - kernels.raised : static_cast<signed char>(q[k]);
    }
    return static_cast<float>(sum);
  }

  std::vector<float> sums_;  // [m, groups]
};

// y += x[:, outliers] * w[:, outliers]^T
void add_outliers(const LinearArgs& args, const std::vector<std::int32_t>& outliers,
                  ExecContext& context) {
  if (outliers.empty()) return;
  const QuantTensor& w = args.w->canonical;
  context.pool.parallel_for(w.rows, 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> weights(outliers.size());
    for (std::int64_t n = begin; n < end; ++n) {
      for (std::size_t i = 0; i < outliers.size(); ++i) {
        w.format->decode(w, n, outliers[i], 1, &weights[i]);
      }
      for (std::int64_t row = 0; row < args.m; ++row) {
        float sum = 0;
        for (std::size_t i = 0; i < outliers.size(); ++i) {
          sum += args.x[row * args.x_stride + outliers[i]] * weights[i];
        }
        args.y[row * args.y_stride + n] += sum;
      }
    }
  });
}

// Calls with one format.
void run_alike(const TokenKernels& kernels, std::span<const LinearArgs> calls,
               ExecContext& context) {
  const LinearArgs& input = calls.front();
  const std::int64_t cols = input.w->canonical.cols;
  const ActivationFormat& format = *input.activations;
  const ActivationCall seen = format.observe(input.x, input.x_stride, input.m, cols);
  const std::vector<std::int64_t> panels = panel_counts(calls);
  for (std::int64_t begin = 0; begin < input.m; begin += kMaxRows) {
    const std::int64_t m = std::min(kMaxRows, input.m - begin);
    const TokenRows rows = allocate_rows(m, cols);
    context.pool.parallel_for(m, 16, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        round_row(kernels, format, seen.outliers, input.x + (begin + i) * input.x_stride, cols,
                  rows.q + i * rows.stride, rows.scale + i);
      }
    });
    std::vector<GroupSums> sums;
    for (const LinearArgs& call : calls) {
      sums.emplace_back(kernels, panels_of(call)->view(), rows, m, context.pool);
    }
    parallel_for_parts(
        context.pool, panels, [&](std::size_t part, std::int64_t first, std::int64_t last) {
          thread_local Scratch scratch;
          const PanelView& w = panels_of(calls[part])->view();
          TokenTask task = {.w = w,
                            .q = rows.q,
                            .q_stride = rows.stride,
                            .scale = rows.scale,
                            .q_sums = sums[part].data(),
                            .m = m,
                            .out = panel_output(calls[part], begin),
                            .scratch = reinterpret_cast<unsigned char*>(
                                scratch.floats(token_scratch_bytes(kernels, w, m) / 4))};
          for (task.panel = first; task.panel < last; ++task.panel) kernels.run(task);
        });
  }
  for (const LinearArgs& call : calls) add_outliers(call, seen.outliers, context);
}

}  // namespace

Support token_fits(const TokenKernels& kernels, const LinearArgs& args) {
  if (args.activations == nullptr) return Support::no("x is not to be rounded");
  const ActivationDescriptor& format = args.activations->descriptor();
  if (format.element.kind != ElementKind::kInt || !format.symmetric ||
      format.scope != ActivationScope::kToken) {
    return Support::no("activations are no symmetric integers by token");
  }
  if (const Support panels = panels_fit(kernels, args); !panels.ok) return panels;
  const std::int64_t group = panels_of(args)->view().group;
  if (group > kTokenGroup) return Support::no("sums overflow");
  if (group % kernels.group_step != 0) {
    return Support::no(fmt::format("groups are no multiple of {}", kernels.group_step));
  }
  return Support::yes();
}

void run_token(const TokenKernels& kernels, std::span<const LinearArgs> calls,
               ExecContext& context) {
  while (!calls.empty()) {
    const ActivationFormat* const format = calls.front().activations;
    const auto other = std::ranges::find_if(
        calls, [&](const LinearArgs& call) { return call.activations != format; });
    const auto count = static_cast<std::size_t>(other - calls.begin());
    if (calls.front().m > 0) run_alike(kernels, calls.first(count), context);
    calls = calls.subspan(count);
  }
}

}  // namespace nibble::cpu
