#include "quantize/math/gptq.h"

#include <algorithm>
#include <numeric>

#include "backends/rows.h"
#include "base/error.h"

namespace nibble {
namespace {

constexpr double kMaxDamping = 1;

double diagonal(const Hessian& hessian, std::int64_t j) {
  return hessian.moments[static_cast<std::size_t>(j * hessian.channels + j)];
}

constexpr std::int64_t kRowGrain = 16;

// The damped moments in `order`, on and above the diagonal, in the host's memory.
Tensor ordered_moments(const Hessian& hessian, std::span<const std::int64_t> order, double damping,
                       ThreadPool& pool) {
  const std::int64_t n = hessian.channels;
  const double mean = hessian.mean_diagonal();
  Tensor result = host_memory().allocate(DType::kF64, {n, n});
  double* const values = result.mutable_data<double>();
  pool.parallel_for(n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const double* const row = hessian.moments.data() + order[static_cast<std::size_t>(i)] * n;
      double* const out = values + i * n;
      for (std::int64_t j = i; j < n; ++j) out[j] = row[order[static_cast<std::size_t>(j)]];
      if (out[i] == 0) out[i] = mean > 0 ? mean : 1;
      out[i] += damping * mean;
    }
  });
  return result;
}

// w[:, order], where the backend's ops find it.
Tensor gather_columns(const float* w, std::int64_t rows, std::span<const std::int64_t> order,
                      Backend& backend) {
  const auto cols = static_cast<std::int64_t>(order.size());
  Tensor result = host_memory().allocate(DType::kF32, {rows, cols});
  float* const values = result.mutable_data<float>();
  backend.pool().parallel_for(rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t j = 0; j < cols; ++j) {
        values[row * cols + j] = w[row * cols + order[static_cast<std::size_t>(j)]];
      }
    }
  });
  return backend.memory().upload(result);
}

// Part of a matrix in a backend's memory as the host sees it: in place where it can, else copied.
template <class T>
class HostPart {
 public:
  void fetch(Backend& backend, T* data, std::int64_t stride, std::int64_t rows, std::int64_t cols) {
    DeviceMemory& memory = backend.memory();
    data_ = data;
    stride_ = stride;
    if (memory.is_host()) return;
    const auto size = [](std::int64_t count) {
      return static_cast<std::size_t>(count) * sizeof(float);
    };
    Rows packed(backend, rows, cols);
    memory.copy_rows(data, size(stride), size(cols), static_cast<std::size_t>(rows), packed.data(),
                     size(cols));
    copy_.resize(std::max(copy_.size(), static_cast<std::size_t>(rows * cols)));
    memory.copy_out(packed.data(), size(rows * cols), copy_.data());
    data_ = copy_.data();
    stride_ = cols;
  }

  T* row(std::int64_t row) const { return data_ + row * stride_; }

 private:
  T* data_ = nullptr;
  std::int64_t stride_ = 0;
  std::vector<float> copy_;
};

// Whole groups in a block or whole blocks in a group, so that a group's weights are up to date when
// its first column comes up.
std::int64_t aligned_block(std::int64_t block, std::int64_t group) {
  if (group <= block) return block / group * group;
  return group % block == 0 ? block : group;
}

// A matrix whose columns are in the order in which they are rounded.
class ColumnRounding {
 public:
  ColumnRounding(const GptqSteps& steps, std::span<WeightGrids> grids, Backend& backend, float* w)
      : steps_(steps),
        grids_(grids),
        backend_(backend),
        cols_(grids.front().cols()),
        group_(grids.front().group_length()),
        block_(aligned_block(steps.block, group_)),
        w_(w) {
    for (const WeightGrids& part : grids) {
      first_rows_.push_back(rows_);
      rows_ += part.rows();
    }
    work_ = gather_columns(w, rows_, steps.order, backend);
    errors_.resize(static_cast<std::size_t>(rows_ * block_));
    if (!backend.memory().is_host()) sent_.emplace(backend, rows_, block_);
  }

  void run() {
    for (std::int64_t begin = 0; begin < cols_; begin += block_) {
      const std::int64_t end = std::min(begin + block_, cols_);
      fetch(begin, end);
      backend_.pool().parallel_for(static_cast<std::int64_t>(grids_.size()), 1,
                                   [&](std::int64_t first, std::int64_t last) {
                                     for (std::int64_t part = first; part < last; ++part) {
                                       for (std::int64_t i = begin; i < end; ++i)
                                         round_column(part, begin, i, end);
                                     }
                                   });
      if (end < cols_) tell_the_rest(begin, end);
    }
  }

 private:
  const float* factor(std::int64_t row) const {
    return steps_.factor.upper.data<float>() + row * cols_;
  }

  // What rounding the columns looks at, as the host sees it.
  void fetch(std::int64_t begin, std::int64_t end) {
    std::int64_t count = end - begin;
    if (steps_.refit && begin % group_ == 0) count = std::max(count, group_);
    columns_.fetch(backend_, work_.mutable_data<float>() + begin, cols_, rows_, count);
    triangle_.fetch(backend_, factor(begin) + begin, cols_, end - begin, end - begin);
  }

  void round_column(std::int64_t part, std::int64_t begin, std::int64_t i, std::int64_t end) {
    const std::int64_t column = steps_.order[static_cast<std::size_t>(i)];
    if (steps_.refit && column % group_ == 0) refit(part, begin, column);
    const WeightGrids& grids = grids_[static_cast<std::size_t>(part)];
    const std::int64_t first = first_rows_[static_cast<std::size_t>(part)];
    const std::int64_t at = i - begin, count = end - begin;
    const float* const u = triangle_.row(at);
    for (std::int64_t row = 0; row < grids.rows(); ++row) {
      float* const values = columns_.row(first + row);
      const float rounded = grids.round(row, column, values[at]);
      const float error = (values[at] - rounded) / u[at];
      errors_[static_cast<std::size_t>((first + row) * block_ + at)] = error;
      w_[(first + row) * cols_ + column] = rounded;
      for (std::int64_t j = at + 1; j < count; ++j) values[j] -= error * u[j];
    }
  }

  void refit(std::int64_t part, std::int64_t begin, std::int64_t column) {
    WeightGrids& grids = grids_[static_cast<std::size_t>(part)];
    std::vector<float> group;
    for (std::int64_t row = 0; row < grids.rows(); ++row) {
      const float* const at =
          columns_.row(first_rows_[static_cast<std::size_t>(part)] + row) + column - begin;
      group.insert(group.end(), at, at + group_);
    }
    const WeightGrids fitted = steps_.refit(group.data(), grids.rows(), column, group_);
    for (std::int64_t row = 0; row < grids.rows(); ++row) {
      grids.take_group(row, column / group_, fitted, row);
    }
  }

  void tell_the_rest(std::int64_t begin, std::int64_t end) {
    const float* errors = errors_.data();
    if (sent_) {
      backend_.memory().copy_in(errors, errors_.size() * sizeof(float), sent_->data());
      errors = sent_->data();
    }
    backend_.run(SubtractProductArgs{.a = errors,
                                     .a_stride = block_,
                                     .b = factor(begin) + end,
                                     .b_stride = cols_,
                                     .c = work_.mutable_data<float>() + end,
                                     .c_stride = cols_,
                                     .m = rows_,
                                     .n = cols_ - end,
                                     .k = end - begin});
  }

  const GptqSteps& steps_;
  std::span<WeightGrids> grids_;
  Backend& backend_;
  std::int64_t cols_, group_, block_, rows_ = 0;
  float* w_;
  std::vector<std::int64_t> first_rows_;  // of each part
  Tensor work_;                           // [rows, cols], where ops find it
  HostPart<float> columns_;         // of the present block, and of the group that starts there
  HostPart<const float> triangle_;  // the block's own part of the factor
  std::vector<float> errors_;       // [rows, block], each divided by its diagonal entry
  std::optional<Rows> sent_;        // the same on a device
};

// a [rows, n] times b [n, n], negative, as the op gives it.
Rows negative_product(const float* a, const float* b, std::int64_t rows, std::int64_t n,
                      Backend& backend) {
  Rows result(backend, rows, n);
  backend.memory().zero(result.data(), static_cast<std::size_t>(rows * n) * sizeof(float));
  backend.run(SubtractProductArgs{.a = a,
                                  .a_stride = n,
                                  .b = b,
                                  .b_stride = n,
                                  .c = result.data(),
                                  .c_stride = n,
                                  .m = rows,
                                  .n = n,
                                  .k = n});
  return result;
}

// Hessian::drift with its columns in the order, where ops find it.
Tensor ordered_drift(const Hessian& hessian, std::span<const std::int64_t> order,
                     Backend& backend) {
  const std::int64_t n = hessian.channels;
  Tensor result = host_memory().allocate(DType::kF32, {n, n});
  float* const values = result.mutable_data<float>();
  backend.pool().parallel_for(n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const double* const row = hessian.drift.data() + i * n;
      for (std::int64_t j = 0; j < n; ++j) {
        values[i * n + j] = static_cast<float>(row[order[static_cast<std::size_t>(j)]]);
      }
    }
  });
  return backend.memory().upload(result);
}

}  // namespace

std::vector<std::int64_t> column_order(ColumnOrder order, const Hessian& hessian,
                                       std::int64_t group_length) {
  std::vector<std::int64_t> result(static_cast<std::size_t>(hessian.channels));
  std::iota(result.begin(), result.end(), 0);
  if (order == ColumnOrder::kStored) return result;
  std::vector<double> largest(static_cast<std::size_t>(hessian.channels / group_length), 0.0);
  for (std::int64_t j = 0; j < hessian.channels; ++j) {
    double& of_group = largest[static_cast<std::size_t>(j / group_length)];
    of_group = std::max(of_group, diagonal(hessian, j));
  }
  std::ranges::stable_sort(result, [&](std::int64_t a, std::int64_t b) {
    const std::int64_t group_a = a / group_length, group_b = b / group_length;
    if (order == ColumnOrder::kGroups && group_a != group_b) {
      const double most_a = largest[static_cast<std::size_t>(group_a)];
      const double most_b = largest[static_cast<std::size_t>(group_b)];
      return most_a != most_b ? most_a > most_b : group_a < group_b;
    }
    return diagonal(hessian, a) > diagonal(hessian, b);
  });
  return result;
}

InverseFactor on_host(const InverseFactor& factor, Backend& backend) {
  return {backend.memory().download(factor.upper), factor.damping};
}

std::optional<InverseFactor> inverse_factor(const Hessian& hessian,
                                            std::span<const std::int64_t> order, double damping,
                                            Backend& backend) {
  const std::int64_t n = hessian.channels;
  NIBBLE_CHECK(static_cast<std::int64_t>(order.size()) == n);
  DeviceMemory& memory = backend.memory();
  for (; damping <= kMaxDamping; damping = damping > 0 ? 10 * damping : 1e-6) {
    Tensor h = memory.upload(ordered_moments(hessian, order, damping, backend.pool()));
    InverseFactor result{memory.allocate(DType::kF32, {n, n}), damping};
    bool definite = false;
    backend.run(InverseFactorArgs{h.mutable_data<double>(), n, result.upper.mutable_data<float>(),
                                  &definite});
    if (definite) return result;
  }
  return std::nullopt;
}

void gptq_rows(const GptqSteps& steps, std::span<WeightGrids> grids, Backend& backend, float* w) {
  if (grids.empty()) return;
  NIBBLE_CHECK(static_cast<std::int64_t>(steps.order.size()) == grids.front().cols());
  ColumnRounding(steps, grids, backend, w).run();
}

void follow_drift(const Hessian& hessian, const InverseFactor& factor,
                  std::span<const std::int64_t> order, const DriftStrength& strength,
                  std::int64_t rows, Backend& backend, float* w) {
  const std::int64_t n = hessian.channels;
  DeviceMemory& memory = backend.memory();
  const bool residual = strength.residual > 0 && !hessian.residual.empty();
  NIBBLE_CHECK(!residual || static_cast<std::int64_t>(hessian.residual.size()) == rows * n);
  const auto bytes = static_cast<std::size_t>(rows * n) * sizeof(float);
  // (w D + R) (U^T U), from left to right.
  Rows moved = [&] {
    const Tensor drift = ordered_drift(hessian, order, backend);
    Rows source(backend, rows, n);
    memory.copy_in(w, bytes, source.data());
    return negative_product(source.data(), drift.data<float>(), rows, n, backend);
  }();
  HostPart<float> seen;
  seen.fetch(backend, moved.data(), n, rows, n);
  const auto for_host_rows = [&](const auto& body) {
    backend.pool().parallel_for(rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) body(row, seen.row(row));
    });
  };
  for_host_rows([&](std::int64_t row, float* values) {
    for (std::int64_t j = 0; j < n; ++j) {
      values[j] *= static_cast<float>(strength.drift);
      if (!residual) continue;
      const auto at = static_cast<std::size_t>(row * n + order[static_cast<std::size_t>(j)]);
      values[j] -= static_cast<float>(strength.residual * hessian.residual[at]);
    }
  });
  if (!memory.is_host()) memory.copy_in(seen.row(0), bytes, moved.data());
  {
    Rows lower(backend, n, n);  // U^T
    const float* const upper = factor.upper.data<float>();
    backend.run(TransposeArgs{.x = upper, .rows = n, .cols = n, .y = lower.data()});
    const Rows next = negative_product(moved.data(), lower.data(), rows, n, backend);
    moved = negative_product(next.data(), upper, rows, n, backend);
  }
  seen.fetch(backend, moved.data(), n, rows, n);
  for_host_rows([&](std::int64_t row, const float* values) {
    for (std::int64_t j = 0; j < n; ++j) {
      w[row * n + order[static_cast<std::size_t>(j)]] -= values[j];  // of three negations
    }
  });
}

}  // namespace nibble
