#include "quantize/hessian_observer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::int64_t kRowsAtOnce = 2048;  // of a float32 product
constexpr std::int64_t kBlock = 256;        // columns of one product

// [rows, cols] as [cols, rows].
std::vector<float> transpose(const float* x, std::int64_t rows, std::int64_t cols,
                             ThreadPool& pool) {
  std::vector<float> result(static_cast<std::size_t>(rows * cols));
  pool.parallel_for(cols, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t col = begin; col < end; ++col) {
        result[static_cast<std::size_t>(col * rows + row)] = x[row * cols + col];
      }
    }
  });
  return result;
}

// sum[i, j] += a_i . b_j for rows a_i and b_j of `rows` values, cols of b; if symmetric, for all i
// from the block of j on.
void add_products(const std::vector<float>& a, const std::vector<float>& b, std::int64_t cols,
                  std::int64_t rows, bool symmetric, std::span<double> sum, Backend& backend) {
  const std::int64_t left = static_cast<std::int64_t>(a.size()) / rows;
  std::vector<float> product(static_cast<std::size_t>(left * kBlock));
  for (std::int64_t begin = 0; begin < cols; begin += kBlock) {
    const std::int64_t count = std::min(kBlock, cols - begin);
    const std::int64_t first = symmetric ? begin : 0;
    Tensor values = from_float(b.data() + begin * rows, DType::kF32, {count, rows});
    const LinearWeight weight = backend.prepare(dense(std::move(values)));
    LinearArgs args;
    args.x = a.data() + first * rows;
    args.x_stride = rows;
    args.m = left - first;
    args.w = &weight;
    args.y = product.data();
    args.y_stride = count;
    backend.run(args);
    backend.pool().parallel_for(args.m, 64, [&](std::int64_t i0, std::int64_t i1) {
      for (std::int64_t i = i0; i < i1; ++i) {
        double* out = sum.data() + (first + i) * cols + begin;
        const float* in = product.data() + i * count;
        for (std::int64_t j = 0; j < count; ++j) out[j] += static_cast<double>(in[j]);
      }
    });
  }
}

void add_magnitudes(Hessian& hessian, const float* x, std::int64_t rows) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (double& sum : hessian.sum_abs) sum += static_cast<double>(std::abs(*x++));
  }
}

}  // namespace

void InputRecorder::on_input(const std::string& site, const float* x, std::int64_t rows,
                             std::int64_t cols) {
  if (!sites_.contains(site)) return;
  std::vector<float>& inputs = inputs_[site];
  inputs.insert(inputs.end(), x, x + rows * cols);
}

const std::vector<float>* InputRecorder::find(const std::string& site) const {
  const auto found = inputs_.find(site);
  return found == inputs_.end() ? nullptr : &found->second;
}

void accumulate(Hessian& hessian, const float* x, const float* full, std::int64_t rows,
                Backend& backend) {
  const std::int64_t cols = hessian.channels;
  const auto size = static_cast<std::size_t>(cols * cols);
  hessian.moments.resize(size);
  hessian.sum_abs.resize(static_cast<std::size_t>(cols));
  if (full != nullptr) hessian.drift.resize(size);
  for (std::int64_t begin = 0; begin < rows; begin += kRowsAtOnce) {
    const std::int64_t count = std::min(kRowsAtOnce, rows - begin);
    const std::vector<float> columns = transpose(x + begin * cols, count, cols, backend.pool());
    add_products(columns, columns, cols, count, true, hessian.moments, backend);
    if (full == nullptr) continue;
    std::vector<float> drift(x + begin * cols, x + (begin + count) * cols);
    for (std::size_t i = 0; i < drift.size(); ++i) {
      drift[i] = full[static_cast<std::size_t>(begin * cols) + i] - drift[i];
    }
    add_products(transpose(drift.data(), count, cols, backend.pool()), columns, cols, count, false,
                 hessian.drift, backend);
  }
  add_magnitudes(hessian, x, rows);
  hessian.rows += rows;
}

void accumulate_residual(Hessian& hessian, const float* missing, std::int64_t outputs,
                         const float* x, std::int64_t rows, Backend& backend) {
  const std::int64_t cols = hessian.channels;
  hessian.residual.resize(static_cast<std::size_t>(outputs * cols));
  for (std::int64_t begin = 0; begin < rows; begin += kRowsAtOnce) {
    const std::int64_t count = std::min(kRowsAtOnce, rows - begin);
    add_products(transpose(missing + begin * outputs, count, outputs, backend.pool()),
                 transpose(x + begin * cols, count, cols, backend.pool()), cols, count, false,
                 hessian.residual, backend);
  }
}

void finish(Hessian& hessian) {
  const std::int64_t n = hessian.channels;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = i + 1; j < n; ++j) {
      hessian.moments[static_cast<std::size_t>(i * n + j)] =
          hessian.moments[static_cast<std::size_t>(j * n + i)];
    }
  }
}

void HessianObserver::on_input(const std::string& site, const float* x, std::int64_t rows,
                               std::int64_t cols) {
  if (rows == 0 || !sites_.contains(site)) return;
  Hessian& hessian = hessians_[site];
  hessian.channels = cols;
  // Behind a router the two models may send different rows to an expert; such rows have no partner.
  const std::vector<float>* full = full_ == nullptr ? nullptr : full_->find(site);
  const bool routed = site.find('.') != std::string::npos && !site.ends_with(".shared");
  std::size_t& seen = seen_[site];
  const float* partner = full == nullptr || routed ? nullptr : full->data() + seen;
  seen += static_cast<std::size_t>(rows * cols);
  if (partner != nullptr) NIBBLE_CHECK(seen <= full->size());
  accumulate(hessian, x, partner, rows, backend_);
  if (!hessian.is_finite()) {
    fail(ErrorKind::kCorrupt,
         "layer {}: the input of site {} holds a NaN or infinity; the model computes no usable "
         "activations on the calibration text",
         layer_, site);
  }
}

void HessianObserver::add_residual(const std::string& site, const std::vector<float>& x,
                                   const std::vector<float>& missing, std::int64_t outputs) {
  const auto found = hessians_.find(site);
  NIBBLE_CHECK(found != hessians_.end());
  const auto rows = static_cast<std::int64_t>(missing.size()) / outputs;
  NIBBLE_CHECK(static_cast<std::int64_t>(x.size()) == rows * found->second.channels);
  accumulate_residual(found->second, missing.data(), outputs, x.data(), rows, backend_);
}

LayerHessians HessianObserver::take() {
  for (auto& [site, hessian] : hessians_) finish(hessian);
  return std::move(hessians_);
}

}  // namespace nibble
