#include "quantize/hessian_sums.h"

#include <algorithm>

#include "base/error.h"
#include "base/memory.h"

namespace nibble {
namespace {

constexpr std::int64_t kRowsAtOnce = 2048;  // of a float32 product
constexpr std::int64_t kBlock = 256;        // columns of one product on the host
constexpr std::int64_t kDeviceBlock = 2048;
constexpr std::int64_t kElementGrain = std::int64_t{1} << 16;
constexpr std::int64_t kMirrorTile = 32;

// x [rows, cols] as [cols, rows].
Rows transposed(const float* x, std::int64_t rows, std::int64_t cols, Backend& backend) {
  Rows result(backend, cols, rows);
  backend.run(TransposeArgs{.x = x, .rows = rows, .cols = cols, .y = result.data()});
  return result;
}

// to - from
Rows difference(const float* to, const float* from, std::int64_t rows, std::int64_t cols,
                Backend& backend) {
  Rows result(backend, rows, cols);
  const std::int64_t count = rows * cols;
  backend.memory().copy(to, static_cast<std::size_t>(count) * sizeof(float), result.data());
  backend.run(AddArgs{.x = from, .y = result.data(), .count = count, .scale = -1});
  return result;
}

// body(first row, rows) for pieces of so many rows as one product takes.
template <class Body>
void for_pieces(std::int64_t rows, const Body& body) {
  for (std::int64_t begin = 0; begin < rows; begin += kRowsAtOnce) {
    body(begin, std::min(kRowsAtOnce, rows - begin));
  }
}

}  // namespace

ProductSum::ProductSum(Backend& backend, std::int64_t left, std::int64_t right)
    : backend_(&backend), left_(left), right_(right) {
  DeviceMemory& memory = backend.memory();
  if (memory.is_host()) {
    sum_.resize(static_cast<std::size_t>(left * right));
  } else {
    device_sum_ = memory.allocate(DType::kF32, {left, right});
    memory.zero(device_sum_.address(), device_sum_.byte_size());
  }
}

void ProductSum::add(const Rows& a, const Rows& b) { add_from(a, b, false); }

// A block of columns at a time; of `lower`, from the block's own row on.
void ProductSum::add_from(const Rows& a, const Rows& b, bool lower) {
  NIBBLE_CHECK(a.rows() == left_ && b.rows() == right_ && a.cols() == b.cols());
  const bool on_host = device_sum_.empty();
  const std::int64_t block = on_host ? kBlock : kDeviceBlock;
  for (std::int64_t begin = 0; begin < right_; begin += block) {
    const std::int64_t end = std::min(right_, begin + block);
    const std::int64_t first = lower ? begin : 0;
    const LinearWeight weight = backend_->prepare(dense(b.matrix(begin, end)));
    LinearArgs args;
    args.x = a.data() + first * a.cols();
    args.x_stride = a.cols();
    args.m = left_ - first;
    args.w = &weight;
    if (on_host) {
      add_on_host(args, first, begin);
      continue;
    }
    args.y = device_sum_.mutable_data<float>() + first * right_ + begin;
    args.y_stride = right_;
    args.accumulate = true;
    backend_->run(args);
  }
}

void ProductSum::add_on_host(const LinearArgs& product, std::int64_t first, std::int64_t begin) {
  const std::int64_t count = product.w->canonical.rows;
  Rows result(*backend_, product.m, count);
  LinearArgs args = product;
  args.y = result.data();
  args.y_stride = count;
  backend_->run(args);
  backend_->pool().parallel_for(args.m, 64, [&](std::int64_t i0, std::int64_t i1) {
    for (std::int64_t i = i0; i < i1; ++i) {
      double* const out = sum_.data() + (first + i) * right_ + begin;
      const float* const in = result.data() + i * count;
      for (std::int64_t j = 0; j < count; ++j) out[j] += static_cast<double>(in[j]);
    }
  });
}

std::vector<double> ProductSum::sums() const {
  if (device_sum_.empty()) return sum_;
  const Tensor host = backend_->memory().download(device_sum_);
  const float* const values = host.data<float>();
  const auto count = static_cast<std::size_t>(host.elements());
  auto result = with_room<double>(count);
  result.resize(count);
  backend_->pool().parallel_for(host.elements(), kElementGrain,
                                [&](std::int64_t begin, std::int64_t end) {
                                  std::copy(values + begin, values + end, result.begin() + begin);
                                });
  return result;
}

std::vector<double> ProductSum::mirrored() const {
  std::vector<double> result = sums();
  // Tiles, so that a line of memory below the diagonal is read once.
  const std::int64_t tiles = (left_ + kMirrorTile - 1) / kMirrorTile;
  const auto mirror_tile = [&](std::int64_t i0, std::int64_t j0) {
    for (std::int64_t i = i0; i < std::min(left_, i0 + kMirrorTile); ++i) {
      for (std::int64_t j = std::max(i + 1, j0); j < std::min(left_, j0 + kMirrorTile); ++j) {
        result[static_cast<std::size_t>(i * left_ + j)] =
            result[static_cast<std::size_t>(j * left_ + i)];
      }
    }
  };
  backend_->pool().parallel_for(tiles, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t tile = begin; tile < end; ++tile) {
      for (std::int64_t j = tile; j < tiles; ++j) mirror_tile(tile * kMirrorTile, j * kMirrorTile);
    }
  });
  return result;
}

HessianSums::HessianSums(Backend& backend, std::int64_t channels)
    : backend_(&backend),
      channels_(channels),
      totals_(backend, channels),
      moments_(backend, channels, channels) {}

void HessianSums::add(const float* x, const float* full, std::int64_t rows) {
  if (full != nullptr && !drift_) drift_.emplace(*backend_, channels_, channels_);
  for_pieces(rows, [&](std::int64_t begin, std::int64_t count) {
    const float* const piece = x + begin * channels_;
    const Rows columns = transposed(piece, count, channels_, *backend_);
    moments_.add_square(columns);
    if (full == nullptr) return;
    const Rows drift = difference(full + begin * channels_, piece, count, channels_, *backend_);
    drift_->add(transposed(drift.data(), count, channels_, *backend_), columns);
  });
  totals_.add(x, rows);
}

void HessianSums::add_residual(const float* missing, std::int64_t outputs, const float* x,
                               std::int64_t rows) {
  if (!residual_) residual_.emplace(*backend_, outputs, channels_);
  for_pieces(rows, [&](std::int64_t begin, std::int64_t count) {
    residual_->add(transposed(missing + begin * outputs, count, outputs, *backend_),
                   transposed(x + begin * channels_, count, channels_, *backend_));
  });
}

Hessian HessianSums::hessian() const {
  Hessian result;
  result.channels = channels_;
  result.rows = totals_.rows();
  result.moments = moments_.mirrored();
  result.sum_abs = totals_.sum_abs();
  if (drift_) result.drift = drift_->sums();
  if (residual_) result.residual = residual_->sums();
  return result;
}

}  // namespace nibble
