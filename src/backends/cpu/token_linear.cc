// Linear on byte codes of rows that a format of activations makes.
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
  rows.q = reinterpret_cast<unsigned char*>(bytes.floats(m * rows.stride / 4));
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

void round_row(const Int8Kernels& kernels, const ActivationFormat& format,
               const std::vector<std::int32_t>& outliers, const float* x, std::int64_t cols,
               unsigned char* q, float* scale) {
  const ActivationDescriptor& descriptor = format.descriptor();
  const float most = static_cast<float>((1 << (descriptor.element.bits - 1)) - 1);
  if (!outliers.empty()) x = without_outliers(x, cols, descriptor.outlier_threshold);
  *scale = kernels.token_quantize(x, cols, most, q);
  for (const std::int32_t col : outliers) q[col] = static_cast<unsigned char>(kernels.raised);
}

// The sums of q by group of one weight, [m, groups].
const float* group_sums(const Int8Kernels& kernels, const TokenRows& rows, std::int64_t m,
                        const PanelView& w) {
  if (w.nibbles || w.zeros == nullptr) return nullptr;
  thread_local Scratch scratch;
  float* const sums = scratch.floats(m * w.groups);
  for (std::int64_t row = 0; row < m; ++row) {
    for (std::int64_t g = 0; g < w.groups; ++g) {
      const unsigned char* const q = rows.q + row * rows.stride + g * w.group;
      std::int64_t sum = 0;
      for (std::int64_t k = 0; k < w.group; ++k) {
        sum += kernels.raised != 0 ? q[k] - kernels.raised : static_cast<signed char>(q[k]);
      }
      sums[row * w.groups + g] = static_cast<float>(sum);
    }
  }
  return sums;
}

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
void run_alike(const Int8Kernels& kernels, std::span<const LinearArgs> calls,
               ExecContext& context) {
  const LinearArgs& input = calls.front();
  const std::int64_t cols = input.w->canonical.cols;
  const ActivationFormat& format = *input.activations;
  const ActivationCall seen = format.observe(input.x, input.x_stride, input.m, cols);
  std::vector<std::int64_t> panels;
  for (const LinearArgs& call : calls) {
    panels.push_back(ceil_div(call.w->canonical.rows, kPanelRows));
  }
  for (std::int64_t begin = 0; begin < input.m; begin += kMaxRows) {
    const std::int64_t m = std::min(kMaxRows, input.m - begin);
    const TokenRows rows = allocate_rows(m, cols);
    context.pool.parallel_for(m, 16, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        round_row(kernels, format, seen.outliers, input.x + (begin + i) * input.x_stride, cols,
                  rows.q + i * rows.stride, rows.scale + i);
      }
    });
    parallel_for_parts(context.pool, panels,
                       [&](std::size_t part, std::int64_t first, std::int64_t last) {
                         thread_local Scratch scratch;
                         const LinearArgs& call = calls[part];
                         const PanelView& w = panels_of(call)->view();
                         TokenTask task = {.w = w,
                                           .q = rows.q,
                                           .q_stride = rows.stride,
                                           .scale = rows.scale,
                                           .q_sums = group_sums(kernels, rows, m, w),
                                           .m = m,
                                           .bias = call.bias,
                                           .y = call.y + begin * call.y_stride,
                                           .y_stride = call.y_stride,
                                           .add = call.accumulate,
                                           .scratch = reinterpret_cast<unsigned char*>(
                                               scratch.floats(token_scratch_bytes(w) / 4))};
                         for (task.panel = first; task.panel < last; ++task.panel)
                           kernels.token(task);
                       });
  }
  for (const LinearArgs& call : calls) add_outliers(call, seen.outliers, context);
}

}  // namespace

Support token_fits(const Int8Kernels& kernels, const LinearArgs& args) {
  if (args.activations == nullptr) return Support::no("x is not to be rounded");
  const ActivationDescriptor& format = args.activations->descriptor();
  if (format.element.kind != ElementKind::kInt || !format.symmetric ||
      format.scope != ActivationScope::kToken) {
    return Support::no("activations are no symmetric integers by token");
  }
  const PanelWeight* weight = panels_of(args);
  if (weight == nullptr) return Support::no("the weight is not in panels of integers");
  if (!weight->view().nibbles && !kernels.bytes) return Support::no("products of bytes overflow");
  if (weight->view().group > kTokenGroup) return Support::no("sums overflow");
  return Support::yes();
}

void run_token(const Int8Kernels& kernels, std::span<const LinearArgs> calls,
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
