#include "backends/bench_card_linear.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "base/error.h"
#include "formats/random_weight.h"
#include "formats/registry.h"

namespace nibble {
namespace {

using StepClock = std::chrono::steady_clock;

constexpr int kLeastSamples = 3;

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Weights of one format, in rotation.
struct Rotation {
  ModelFormat parts;
  std::string name;
  std::vector<LinearWeight> weights;
};

// Something that is sampled in turns: a step of `calls` calls on one backend.
struct Sampled {
  CardBenchRow row;
  Arithmetic arithmetic = Arithmetic::kFloat32;
  double bytes = 0;  // of a call
  Backend* backend = nullptr;
  std::function<void()> step;
  double calls = 1;
  bool dependent = true;  // its kernels may overlap with their neighbours
  std::vector<double> isolated, chained, wall;
  double spent = 0;
};

class ShapeBench {
 public:
  using Backends = std::map<std::string, std::unique_ptr<Backend>>;

  ShapeBench(const MakeBackend& make, Backends& backends, Backend& backend, CardTimer& timer,
             const CardLimits& limits, const LinearBench& bench, LinearBench::Shape shape)
      : make_(make),
        backends_(backends),
        backend_(backend),
        timer_(timer),
        limits_(limits),
        bench_(bench),
        shape_(shape) {
    const std::int64_t most = *std::max_element(bench.ms.begin(), bench.ms.end());
    DeviceMemory& memory = backend.memory();
    x_ = memory.upload(random_weight(parse_weight_format("f32"), most, shape.cols, 1).planes[0]);
    y_ = memory.allocate(DType::kF32, {most, shape.rows});
    for (const Arithmetic type : {Arithmetic::kF16, Arithmetic::kBf16}) {
      const auto bytes = static_cast<std::size_t>(2 * shape.rows * shape.cols);
      vendor_.push_back(
          timer.vendor_products(type, most, shape.rows, shape.cols, copies_of(bytes)));
    }
    for (const std::string& format : bench.formats) rotations_.push_back(rotation_of(format));
  }

  void run(std::int64_t m, std::vector<CardBenchRow>& rows) {
    std::vector<Sampled> all;
    add_vendor(m, Arithmetic::kF16, vendor_[0].get(), all);
    add_vendor(m, Arithmetic::kBf16, vendor_[1].get(), all);
    for (const Rotation& rotation : rotations_) {
      for (const ImplRow& impl : backend_.impl_rows()) {
        if (impl.op == "linear" && impl.usable) add_impl(impl, rotation, m, all);
      }
    }
    sample_in_turns(all);
    double vendor_f16 = 0;
    double vendor_bf16 = 0;
    for (Sampled& one : all) {
      finish(one);
      if (one.row.impl == "cublaslt") {
        (one.arithmetic == Arithmetic::kF16 ? vendor_f16 : vendor_bf16) = one.row.isolated;
      }
      one.row.over_f16 = vendor_f16 / one.row.isolated;
      one.row.over_bf16 = vendor_bf16 / one.row.isolated;
      rows.push_back(std::move(one.row));
    }
  }

 private:
  std::int64_t copies_of(std::size_t bytes) const {
    return static_cast<std::int64_t>(bench_.turnover_bytes / bytes) + 1;
  }

  Rotation rotation_of(const std::string& format) {
    Rotation rotation;
    rotation.parts = parse_model_format(format);
    if (rotation.parts.weights == nullptr) {
      fail(ErrorKind::kUsage, "--formats '{}': leaves the weights alone", format);
    }
    const ActivationFormat* const activations = rotation.parts.activations.get();
    rotation.name = rotation.parts.weights->name();
    if (activations != nullptr) rotation.name += " a=" + activations->name();
    QuantTensor weight = random_weight(rotation.parts.weights, shape_.rows, shape_.cols, 1);
    const std::int64_t copies = copies_of(weight.byte_size());
    rotation.weights.push_back(backend_.prepare(std::move(weight), "", activations));
    while (std::ssize(rotation.weights) < copies) {
      rotation.weights.push_back(timer_.copy(rotation.weights[0]));
    }
    return rotation;
  }

  CardBenchRow row_of(const std::string& impl, const std::string& format, std::int64_t m) const {
    CardBenchRow row;
    row.impl = impl;
    row.format = format;
    row.rows = shape_.rows;
    row.cols = shape_.cols;
    row.m = m;
    return row;
  }

  // Weights as they are stored, x and y with elements of so many bytes.
  double bytes_of(std::size_t weight_bytes, double element, std::int64_t m) const {
    return static_cast<double>(weight_bytes) +
           element * static_cast<double>(m * (shape_.rows + shape_.cols));
  }

  void add_vendor(std::int64_t m, Arithmetic type, VendorProducts* products,
                  std::vector<Sampled>& all) {
    if (products == nullptr || products->algorithms(m) == 0) return;
    const int algorithm = fastest_algorithm(timer_, backend_, *products, m).algorithm;
    Sampled one;
    one.row = row_of("cublaslt", limit_name(type), m);
    one.arithmetic = type;
    one.bytes = bytes_of(static_cast<std::size_t>(2 * shape_.rows * shape_.cols), 2, m);
    one.backend = &backend_;
    one.step = [products, m, algorithm] { products->issue(m, algorithm); };
    one.calls = static_cast<double>(products->copies());
    one.dependent = false;
    all.push_back(std::move(one));
  }

  void add_impl(const ImplRow& impl, const Rotation& rotation, std::int64_t m,
                std::vector<Sampled>& all) {
    std::unique_ptr<Backend>& backend = backends_[impl.name];
    if (backend == nullptr) backend = make_("linear:" + impl.name);
    Sampled one;
    one.row = row_of(impl.name, rotation.name, m);
    one.arithmetic = impl.arithmetic;
    one.bytes = bytes_of(rotation.weights[0].canonical.byte_size(), 4, m);
    one.backend = backend.get();
    one.step = [this, m, &rotation, to = backend.get()] {
      LinearArgs args;
      args.x = x_.data<float>();
      args.x_stride = shape_.cols;
      args.m = m;
      args.y = y_.mutable_data<float>();
      args.y_stride = shape_.rows;
      args.activations = rotation.parts.activations.get();
      for (const LinearWeight& weight : rotation.weights) {
        args.w = &weight;
        to->run(args);
      }
    };
    one.calls = static_cast<double>(rotation.weights.size());
    try {
      sample(one);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kUnsupported) return;  // this implementation, not for this
      throw;
    }
    for (auto* times : {&one.isolated, &one.chained, &one.wall}) times->clear();  // it warmed up
    all.push_back(std::move(one));
  }

  void sample(Sampled& one) {
    constexpr double kLong = 1e-3;  // plays that take so long together tell the time well enough
    const double known = one.isolated.empty() ? kLong : one.isolated.back() * one.calls;
    const int plays = std::clamp(static_cast<int>(kLong / known), 1, 16);
    const auto start = StepClock::now();
    const CardTimer::Times alone = timer_.time(*one.backend, one.step, plays, true);
    const CardTimer::Times row =
        one.dependent ? timer_.time(*one.backend, one.step, plays, false) : alone;
    one.isolated.push_back(alone.card / one.calls);
    one.chained.push_back(row.card / one.calls);
    one.wall.push_back(row.wall / one.calls);
    one.spent += std::chrono::duration<double>(StepClock::now() - start).count();
  }

  void sample_in_turns(std::vector<Sampled>& all) {
    for (bool more = true; more;) {
      more = false;
      for (Sampled& one : all) {
        if (std::ssize(one.isolated) >= kLeastSamples && one.spent >= bench_.seconds) continue;
        sample(one);
        one.row.state = timer_.state();
        more = true;
      }
    }
  }

  void finish(Sampled& one) const {
    CardBenchRow& row = one.row;
    row.isolated = median(one.isolated);
    row.chained = median(one.chained);
    row.wall = median(one.wall);
    row.samples = std::ssize(one.isolated);
    const double operations = 2 * static_cast<double>(row.m) * static_cast<double>(row.rows) *
                              static_cast<double>(row.cols);
    row.bytes_per_second = one.bytes / row.isolated;
    row.operations_per_second = operations / row.isolated;
    const BoundShare share =
        share_of_bound(limits_, one.arithmetic, one.bytes, operations, row.isolated);
    row.fraction = share.fraction;
    row.limit = share.limit;
  }

  const MakeBackend& make_;
  Backends& backends_;
  Backend& backend_;
  CardTimer& timer_;
  const CardLimits& limits_;
  const LinearBench& bench_;
  LinearBench::Shape shape_;
  Tensor x_;
  Tensor y_;
  std::vector<std::unique_ptr<VendorProducts>> vendor_;  // f16, bf16
  std::vector<Rotation> rotations_;
};

}  // namespace

LinearBench default_card_bench() {
  LinearBench bench;
  bench.shapes = {{4096, 4096}, {14336, 4096}, {4096, 14336},
                  {8192, 8192}, {22016, 8192}, {8192, 22016}};
  bench.ms = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 8192};
  bench.formats = {"w4a16_g128", "w4a16_g128_sym", "w8a16", "w4a8_fp8", "w8a8_fp8", "w8a8_int8"};
  bench.seconds = 0.02;
  return bench;
}

BoundShare share_of_bound(const CardLimits& limits, Arithmetic arithmetic, double bytes,
                          double operations, double seconds) {
  BoundShare share;
  const auto hold_against = [&](double amount, double limit, const char* name) {
    const double fraction = limit > 0 ? amount / limit / seconds : 0;
    if (fraction > share.fraction) share = {fraction, name};
  };
  hold_against(bytes, limits.copy_bytes_per_second, "copy");
  hold_against(operations, limits.operations_per_second(arithmetic), limit_name(arithmetic));
  return share;
}

std::vector<CardBenchRow> bench_card_linear(const MakeBackend& make, Backend& backend,
                                            CardTimer& timer, const CardLimits& limits,
                                            const LinearBench& bench,
                                            const ProgressSink& progress) {
  std::vector<CardBenchRow> rows;
  if (bench.ms.empty()) return rows;
  ShapeBench::Backends backends;
  const std::int64_t total = std::ssize(bench.shapes) * std::ssize(bench.ms);
  std::int64_t done = 0;
  for (const LinearBench::Shape& shape : bench.shapes) {
    ShapeBench one(make, backends, backend, timer, limits, bench, shape);
    for (const std::int64_t m : bench.ms) {
      one.run(m, rows);
      nibble::progress(progress, fmt::format("{} x {}", shape.cols, shape.rows), ++done, total);
    }
  }
  return rows;
}

}  // namespace nibble
