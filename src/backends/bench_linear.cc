#include "backends/bench_linear.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <random>

#include "backends/vendor_blas.h"
#include "base/error.h"
#include "formats/registry.h"

namespace nibble {
namespace {

// The shortest of as many runs as fit into the time, after one that warms caches and scratch
// memory.
double best_seconds(double budget, const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  run();
  double best = 1e30;
  double spent = 0;
  for (int runs = 0; runs < 3 || spent < budget; ++runs) {
    const auto start = Clock::now();
    run();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

// One weight matrix in float32 and the activations of the largest m.
class Bench {
 public:
  Bench(const MakeBackend& make, const SpeedLimits& limits, const LinearBench& bench,
        LinearBench::Shape shape)
      : make_(make), limits_(limits), bench_(bench), shape_(shape), backend_(make("")) {
    const std::int64_t largest =
        bench.ms.empty() ? 0 : *std::max_element(bench.ms.begin(), bench.ms.end());
    w_ = random(shape.rows * shape.cols);
    x_ = random(largest * shape.cols);
    y_ = Tensor::allocate(DType::kF32, {largest, shape.rows});
  }

  void run(std::vector<BenchRow>& rows) {
    for (const std::string& format : bench_.formats) {
      const ModelFormat parts = parse_model_format(format);
      if (parts.weights == nullptr) {
        fail(ErrorKind::kUsage, "--formats '{}': leaves the weights alone", format);
      }
      activations_ = parts.activations;
      const LinearWeight weight =
          backend_->prepare(parts.weights->encode(w_.data<float>(), shape_.rows, shape_.cols), "",
                            activations_.get());
      for (const std::int64_t m : bench_.ms) {
        for (const ImplRow& impl : backend_->impl_rows()) {
          if (impl.op == "linear" && impl.usable) run_impl(impl, weight, m, rows);
        }
      }
    }
    run_vendor(backend_->pool().threads(), rows);
  }

 private:
  static Tensor random(std::int64_t count) {
    std::mt19937 generator(1);
    std::uniform_real_distribution<float> uniform(-0.1f, 0.1f);
    Tensor values = Tensor::allocate(DType::kF32, {count});
    for (std::int64_t i = 0; i < count; ++i) values.mutable_data<float>()[i] = uniform(generator);
    return values;
  }

  void run_impl(const ImplRow& impl, const LinearWeight& weight, std::int64_t m,
                std::vector<BenchRow>& rows) {
    constexpr std::int64_t kReferenceRows = 16;  // beyond, it only costs patience
    if (impl.name == "reference" && m > kReferenceRows) return;
    const std::unique_ptr<Backend> backend = make_("linear:" + impl.name);
    LinearArgs args;
    args.x = x_.data<float>();
    args.x_stride = shape_.cols;
    args.m = m;
    args.w = &weight;
    args.y = y_.mutable_data<float>();
    args.y_stride = shape_.rows;
    args.activations = activations_.get();
    try {
      const double seconds = best_seconds(bench_.seconds, [&] { backend->run(args); });
      const std::string name = weight.canonical.format->name();
      const std::string inputs = activations_ != nullptr ? " a=" + activations_->name() : "";
      rows.push_back(row(impl, name + inputs, m, seconds, weight.canonical.byte_size()));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kUnsupported) throw;  // this implementation, not for this m
    }
  }

  void run_vendor(int threads, std::vector<BenchRow>& rows) {
    const std::unique_ptr<VendorBlas> vendor = VendorBlas::open(threads);
    if (vendor == nullptr) return;
    for (const std::int64_t m : bench_.ms) {
      const double seconds = best_seconds(bench_.seconds, [&] {
        vendor->linear(x_.data<float>(), w_.data<float>(), m, shape_.rows, shape_.cols,
                       y_.mutable_data<float>());
      });
      rows.push_back(row({"linear", "openblas"}, "f32", m, seconds, w_.byte_size()));
    }
  }

  BenchRow row(const ImplRow& impl, const std::string& format, std::int64_t m, double seconds,
               std::size_t weight_bytes) const {
    BenchRow result;
    result.op = "linear";
    result.impl = impl.name;
    result.format = format;
    result.rows = shape_.rows;
    result.cols = shape_.cols;
    result.m = m;
    result.seconds = seconds;
    const double elements = static_cast<double>(shape_.rows) * static_cast<double>(shape_.cols);
    const double flops = 2 * static_cast<double>(m) * elements / seconds;
    const double bytes = (static_cast<double>(weight_bytes) +
                          4.0 * static_cast<double>(m * (shape_.rows + shape_.cols))) /
                         seconds;
    result.gflops = flops * 1e-9;
    result.gbytes_per_second = bytes * 1e-9;
    const double peak = limits_.operations_per_second(impl.arithmetic);
    if (peak > 0) result.flops_fraction = flops / peak;
    if (limits_.bytes_per_second > 0) result.bandwidth_fraction = bytes / limits_.bytes_per_second;
    return result;
  }

  const MakeBackend& make_;
  const SpeedLimits& limits_;
  const LinearBench& bench_;
  LinearBench::Shape shape_;
  std::unique_ptr<Backend> backend_;
  ActivationFormatPtr activations_;  // of the format that is measured
  Tensor w_;
  Tensor x_;
  Tensor y_;
};

}  // namespace

std::vector<BenchRow> bench_linear(const MakeBackend& make, const SpeedLimits& limits,
                                   const LinearBench& bench) {
  std::vector<BenchRow> rows;
  for (const LinearBench::Shape& shape : bench.shapes) {
    Bench(make, limits, bench, shape).run(rows);
  }
  return rows;
}

}  // namespace nibble
