#include "quantize/rewritten_checkpoint.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

constexpr std::string_view kWeight = ".weight";

void change_row(const MatrixChange& change, float* row, std::int64_t cols) {
  for (std::size_t j = 0; j < change.gain.size(); ++j) row[j] *= change.gain[j];
  if (change.centers_columns) {
    double sum = 0;
    for (std::int64_t j = 0; j < cols; ++j) sum += static_cast<double>(row[j]);
    const auto mean = static_cast<float>(sum / static_cast<double>(cols));
    for (std::int64_t j = 0; j < cols; ++j) row[j] -= mean;
  }
  if (change.columns == nullptr) return;
  for (std::int64_t j = 0; j < cols; j += change.columns->size()) change.columns->apply(row + j);
}

void center_rows(std::span<float> w, std::int64_t cols) {
  std::vector<double> sum(static_cast<std::size_t>(cols), 0.0);
  for (std::size_t i = 0; i < w.size(); ++i) sum[i % sum.size()] += static_cast<double>(w[i]);
  const double rows = static_cast<double>(w.size()) / static_cast<double>(cols);
  for (std::size_t i = 0; i < w.size(); ++i) {
    w[i] -= static_cast<float>(sum[i % sum.size()] / rows);
  }
}

// Changes of rows alone: some at a time, so that tables of vocabularies are never whole in float32.
Tensor changed_by_row(const MatrixChange& change, const Tensor& weight, ThreadPool& pool) {
  const std::int64_t cols = weight.dim(1);
  Tensor result = Tensor::allocate(weight.dtype(), weight.shape());
  auto* const to = static_cast<std::byte*>(result.address());
  const std::size_t row_bytes = result.byte_size() / static_cast<std::size_t>(weight.dim(0));
  pool.parallel_for(weight.dim(0), 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(cols));
    for (std::int64_t r = begin; r < end; ++r) {
      to_float(weight, r * cols, cols, row.data());
      change_row(change, row.data(), cols);
      const Tensor stored = from_float(row.data(), weight.dtype(), {cols});
      std::memcpy(to + static_cast<std::size_t>(r) * row_bytes, stored.bytes().data(), row_bytes);
    }
  });
  return result;
}

Tensor changed(const MatrixChange& change, const Tensor& weight, ThreadPool& pool) {
  if (!change.centers_rows && change.rows == nullptr) return changed_by_row(change, weight, pool);
  const std::int64_t cols = weight.dim(1);
  Tensor values = to_float(weight);
  float* const w = values.mutable_data<float>();
  pool.parallel_for(weight.dim(0), 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) change_row(change, w + r * cols, cols);
  });
  if (change.centers_rows) {
    center_rows({w, static_cast<std::size_t>(values.elements())}, cols);
  }
  for (const std::int64_t begin : change.row_begins) {
    rotate_rows(*change.rows, begin, cols, w, pool);
  }
  return from_float(w, weight.dtype(), weight.shape());
}

}  // namespace

void change_vector(const MatrixChange& change, std::vector<float>& values) {
  if (change.centers_rows) center_rows(values, 1);
  for (const std::int64_t begin : change.row_begins) change.rows->apply(values.data() + begin);
}

RewrittenCheckpoint::RewrittenCheckpoint(std::unique_ptr<Checkpoint> source, ModelSpec spec,
                                         Rewrite rewrite, Backend& backend)
    : source_(std::move(source)),
      spec_(std::move(spec)),
      rewrite_(std::move(rewrite)),
      backend_(backend) {
  for (const std::string& name : source_->names()) {
    if (!rewrite_.left_out.contains(name)) names_.insert(name);
  }
  for (const auto& [module, change] : rewrite_.matrices) names_.insert(module + ".weight");
  for (const auto& [name, tensor] : rewrite_.tensors) names_.insert(name);
}

Tensor RewrittenCheckpoint::original(const std::string& module, const MatrixChange& change) const {
  if (change.layer < 0) {
    return source_->linear(change.from.empty() ? module : change.from).planes[0];
  }
  if (loaded_ != change.layer) {
    LayerWeights weights = load_layer(spec_, change.layer, *source_, backend_);
    layer_.clear();
    for (const Linear* linear : weights.linears())
      layer_[linear->module] = linear->weight.canonical;
    if (weights.router.exists()) {
      layer_[weights.router.module] = weights.router.weight.canonical;
    }
    loaded_ = change.layer;
  }
  return layer_.at(module).planes[0];
}

QuantTensor RewrittenCheckpoint::linear(const std::string& module) const {
  const auto found = rewrite_.matrices.find(module);
  if (found == rewrite_.matrices.end()) return source_->linear(module);
  const MatrixChange& change = found->second;
  Tensor weight = changed(change, original(module, change), backend_.pool());
  const bool turned = spec_.transposed_linears && change.layer >= 0;
  return dense(turned ? transposed(weight) : std::move(weight));
}

bool RewrittenCheckpoint::has_linear(const std::string& module) const {
  if (rewrite_.matrices.contains(module)) return true;
  return !rewrite_.left_out.contains(module) && source_->has_linear(module);
}

Tensor RewrittenCheckpoint::tensor(const std::string& name) const {
  const auto found = rewrite_.tensors.find(name);
  if (found != rewrite_.tensors.end()) return found->second;
  if (name.ends_with(kWeight)) {
    const std::string module = name.substr(0, name.size() - kWeight.size());
    if (rewrite_.matrices.contains(module)) return linear(module).planes[0];
  }
  return source_->tensor(name);
}

std::int64_t RewrittenCheckpoint::input_hadamard(const std::string& module) const {
  const auto found = rewrite_.input_hadamards.find(module);
  return found == rewrite_.input_hadamards.end() ? source_->input_hadamard(module) : found->second;
}

}  // namespace nibble
