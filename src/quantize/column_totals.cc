#include "quantize/column_totals.h"

namespace nibble {
namespace {

Tensor zeros(DeviceMemory& memory, DType dtype, Shape shape) {
  Tensor tensor = memory.allocate(dtype, std::move(shape));
  memory.zero(tensor.address(), tensor.byte_size());
  return tensor;
}

}  // namespace

ColumnTotals::ColumnTotals(Backend& backend, std::int64_t columns)
    : backend_(&backend),
      columns_(columns),
      max_abs_(zeros(backend.memory(), DType::kF32, {columns})),
      sums_(zeros(backend.memory(), DType::kF64, {2, columns})) {}

void ColumnTotals::add(const float* x, std::int64_t rows) {
  ColumnSumsArgs args;
  args.x = x;
  args.rows = rows;
  args.cols = columns_;
  args.max_abs = max_abs_.mutable_data<float>();
  args.sum_squares = sums_.mutable_data<double>();
  args.sum_abs = sums_.mutable_data<double>() + columns_;
  backend_->run(args);
  rows_ += rows;
}

std::vector<double> ColumnTotals::sums(std::int64_t first) const {
  const Tensor host = backend_->memory().download(sums_);
  const double* const values = host.data<double>() + first * columns_;
  return {values, values + columns_};
}

ChannelStatistics ColumnTotals::statistics() const {
  const Tensor largest = backend_->memory().download(max_abs_);
  const auto* const values = largest.data<float>();
  return {{values, values + columns_}, sums(0), rows_};
}

std::vector<double> ColumnTotals::sum_abs() const { return sums(1); }

}  // namespace nibble
