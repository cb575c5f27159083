#include "quantize/hessian_observer.h"

#include "base/error.h"
#include "quantize/statistics.h"

namespace nibble {

void InputRecorder::on_input(const std::string& site, const float* x, std::int64_t rows,
                             std::int64_t cols) {
  if (!sites_.contains(site)) return;
  const auto found = inputs_.find(site);
  const std::int64_t before = found == inputs_.end() ? 0 : found->second.rows();
  Rows all(backend_, before + rows, cols);
  const auto row_bytes = static_cast<std::size_t>(cols) * sizeof(float);
  DeviceMemory& memory = backend_.memory();
  if (before > 0) {
    memory.copy(found->second.data(), static_cast<std::size_t>(before) * row_bytes, all.data());
  }
  memory.copy(x, static_cast<std::size_t>(rows) * row_bytes, all.data() + before * cols);
  inputs_.insert_or_assign(site, std::move(all));
}

const Rows* InputRecorder::find(const std::string& site) const {
  const auto found = inputs_.find(site);
  return found == inputs_.end() ? nullptr : &found->second;
}

// Of rows that come after others.
void HessianObserver::add_samples(const std::string& site, const float* x, std::int64_t rows,
                                  std::int64_t cols) {
  Samples& samples = samples_[site];
  const std::int64_t first = (sample_stride_ - samples.seen % sample_stride_) % sample_stride_;
  const auto width = static_cast<std::size_t>(cols);
  for (std::int64_t row = first; row < rows; row += sample_stride_) {
    samples.values.resize(samples.values.size() + width);
    backend_.memory().copy_out(x + row * cols, width * sizeof(float),
                               samples.values.data() + samples.values.size() - width);
  }
  samples.seen += rows;
}

void HessianObserver::on_input(const std::string& site, const float* x, std::int64_t rows,
                               std::int64_t cols) {
  if (rows == 0 || !sites_.contains(site)) return;
  // Behind a router the two models may send different rows to an expert; such rows have no partner.
  const Rows* full = full_ == nullptr ? nullptr : full_->find(site);
  std::int64_t& seen = seen_[site];
  const float* partner = full == nullptr || is_routed(site) ? nullptr : full->data() + seen * cols;
  seen += rows;
  if (partner != nullptr) NIBBLE_CHECK(seen <= full->rows());
  if (sample_stride_ > 0) add_samples(site, x, rows, cols);
  sums_.try_emplace(site, backend_, cols).first->second.add(x, partner, rows);
}

void HessianObserver::add_residual(const std::string& site, const Rows& x, const Rows& missing) {
  const auto found = sums_.find(site);
  NIBBLE_CHECK(found != sums_.end());
  NIBBLE_CHECK(missing.rows() == x.rows() && x.cols() == found->second.channels());
  found->second.add_residual(missing.data(), missing.cols(), x.data(), x.rows());
}

LayerHessians HessianObserver::take() {
  LayerHessians result;
  for (auto it = sums_.begin(); it != sums_.end(); it = sums_.erase(it)) {
    Hessian& hessian = result[it->first] = it->second.hessian();
    hessian.samples = std::move(samples_[it->first].values);
    if (hessian.is_finite()) continue;
    fail(ErrorKind::kCorrupt,
         "layer {}: the input of site {} holds a NaN or infinity; the model computes no usable "
         "activations on the calibration text",
         layer_, it->first);
  }
  return result;
}

}  // namespace nibble
