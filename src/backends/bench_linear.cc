#include "backends/bench_linear.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <random>

#include "backends/vendor_blas.h"
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
  Bench(const BackendOptions& options, const cpu::MachineLimits& limits, const LinearBench& bench,
        LinearBench::Shape shape)
      : options_(options), limits_(limits), bench_(bench), shape_(shape) {
    const std::int64_t largest =
        bench.ms.empty() ? 0 : *std::max_element(bench.ms.begin(), bench.ms.end());
    w_ = random(shape.rows * shape.cols);
    x_ = random(largest * shape.cols);
    y_.resize(static_cast<std::size_t>(largest * shape.rows));
  }

  void run(std::vector<BenchRow>& rows) {
    const std::unique_ptr<Backend> backend = make_cpu_backend(options_);
    for (const std::string& format : bench_.formats) {
      const LinearWeight weight = backend->prepare(
          parse_weight_format(format)->encode(w_.data(), shape_.rows, shape_.cols));
      for (const std::int64_t m : bench_.ms) {
        for (const ImplRow& impl : backend->impl_rows()) {
          if (impl.op == "linear" && impl.usable) run_impl(impl, weight, m, rows);
        }
      }
    }
    run_vendor(backend->pool().threads(), rows);
  }

 private:
  static std::vector<float> random(std::int64_t count) {
    std::mt19937 generator(1);
    std::uniform_real_distribution<float> uniform(-0.1f, 0.1f);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& v : values) v = uniform(generator);
    return values;
  }

  void run_impl(const ImplRow& impl, const LinearWeight& weight, std::int64_t m,
                std::vector<BenchRow>& rows) {
    constexpr std::int64_t kReferenceRows = 16;  // beyond, it only costs patience
    if (impl.name == "reference" && m > kReferenceRows) return;
    BackendOptions options = options_;
    options.force = "linear:" + impl.name;
    const std::unique_ptr<Backend> backend = make_cpu_backend(options);
    LinearArgs args;
    args.x = x_.data();
    args.x_stride = shape_.cols;
    args.m = m;
    args.w = &weight;
    args.y = y_.data();
    args.y_stride = shape_.rows;
    try {
      const double seconds = best_seconds(bench_.seconds, [&] { backend->run(args); });
      rows.push_back(
          row(impl, weight.canonical.format->name(), m, seconds, weight.canonical.byte_size()));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kUnsupported) throw;  // this implementation, not for this m
    }
  }

  void run_vendor(int threads, std::vector<BenchRow>& rows) {
    const std::unique_ptr<VendorBlas> vendor = VendorBlas::open(threads);
    if (vendor == nullptr) return;
    for (const std::int64_t m : bench_.ms) {
      const double seconds = best_seconds(bench_.seconds, [&] {
        vendor->linear(x_.data(), w_.data(), m, shape_.rows, shape_.cols, y_.data());
      });
      rows.push_back(row({"linear", "openblas"}, "f32", m, seconds, w_.size() * sizeof(float)));
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
    const cpu::Rate rate = limits_.peak(impl.arithmetic);
    if (rate.all_threads > 0) result.flops_fraction = flops / rate.all_threads;
    result.bandwidth_fraction = bytes / limits_.read_bandwidth.all_threads;
    return result;
  }

  const BackendOptions& options_;
  const cpu::MachineLimits& limits_;
  const LinearBench& bench_;
  LinearBench::Shape shape_;
  std::vector<float> w_;
  std::vector<float> x_;
  std::vector<float> y_;
};

}  // namespace

std::vector<BenchRow> bench_linear(const BackendOptions& options, const cpu::MachineLimits& limits,
                                   const LinearBench& bench) {
  std::vector<BenchRow> rows;
  for (const LinearBench::Shape& shape : bench.shapes) {
    Bench(options, limits, bench, shape).run(rows);
  }
  return rows;
}

}  // namespace nibble
