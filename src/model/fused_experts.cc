#include "model/fused_experts.h"

#include <cstring>

#include "base/error.h"
#include "model/stored_tensor.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

// Rows first + set of a plane whose first dimension is rows.
Tensor select(const Tensor& plane, std::int64_t first, const RowSet& set) {
  const std::int64_t begin = first + set.begin;
  if (set.step == 1) return plane.rows(begin, begin + set.count);
  const Tensor from = plane.rows(begin, begin + (set.count - 1) * set.step + 1);
  Shape shape = plane.shape();
  shape[0] = set.count;
  Tensor picked = Tensor::allocate(plane.dtype(), shape);
  auto* to = static_cast<std::byte*>(picked.address());
  const std::size_t row = picked.byte_size() / static_cast<std::size_t>(set.count);
  for (std::int64_t i = 0; i < set.count; ++i) {
    std::memcpy(to + static_cast<std::size_t>(i) * row,
                from.bytes().data() + static_cast<std::size_t>(i * set.step) * row, row);
  }
  return picked;
}

}  // namespace

std::set<std::string> fused_expert_tensors(const ModelSpec& spec, const std::string& prefix) {
  std::set<std::string> names;
  for (const std::string& pattern :
       {spec.names.fused_experts_gate_up, spec.names.fused_experts_down}) {
    const std::size_t at = pattern.find("{}");
    if (at == std::string::npos) continue;
    for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
      std::string name = pattern;
      name = prefix + name.replace(at, 2, std::to_string(layer));
      names.insert(name);
      names.insert(name + kFusedBias);
    }
  }
  return names;
}

FusedExperts::FusedExperts(const WeightSource& source, std::string name, const MlpSpec& spec,
                           std::int64_t rows, std::int64_t cols)
    : source_(source),
      name_(std::move(name)),
      transposed_(spec.transposed_experts),
      experts_(spec.experts),
      rows_(rows),
      cols_(cols) {
  if (name_.empty()) return;
  plain_ = source.has(name_);
  quantized_ = !plain_ && source.has_linear(name_);
  if (plain_) {
    const Shape one = transposed_ ? Shape{cols_, rows_} : Shape{rows_, cols_};
    check_shape(name_, source.tensor(name_).shape(), {experts_, one[0], one[1]});
  }
}

QuantTensor FusedExperts::weight(std::int64_t expert, const RowSet& rows) const {
  if (plain_) {
    const Tensor one = source_.tensor(name_).rows(expert, expert + 1);
    const Tensor matrix =
        transposed_ ? transposed(one.reshaped({cols_, rows_})) : one.reshaped({rows_, cols_});
    return dense(select(matrix, 0, rows));
  }
  QuantTensor all = source_.linear(name_);
  check_shape(name_, {all.rows, all.cols}, {experts_ * rows_, cols_});
  for (Tensor& plane : all.planes) {
    if (plane.shape().empty() || plane.dim(0) != all.rows) {
      fail(ErrorKind::kUnsupported, "module '{}': {} does not divide into experts", name_,
           all.format->name());
    }
    plane = select(plane, expert * rows_, rows);
  }
  all.rows = rows.count;
  return all;
}

Tensor FusedExperts::bias(std::int64_t expert, const RowSet& rows) const {
  const std::string name = name_ + kFusedBias;
  const Tensor all = source_.tensor(name);
  check_floats(name, all, {experts_, rows_});
  const Tensor column = to_float(all.rows(expert, expert + 1)).reshaped({rows_, 1});
  return select(column, 0, rows).reshaped({rows.count});
}

}  // namespace nibble
