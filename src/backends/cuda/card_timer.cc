#include "backends/card_timer.h"

#include <chrono>
#include <utility>

#include "backends/cuda/blas.h"
#include "backends/cuda/linear_parts.h"
#include "backends/cuda/nvml.h"
#include "backends/cuda/queue_of.h"
#include "backends/cuda/status.h"
#include "backends/cuda/weight.h"
#include "formats/random_weight.h"
#include "formats/registry.h"

namespace nibble {
namespace cuda {
namespace {

Tensor copy_of(const Tensor& tensor, DeviceMemory& memory) {
  if (tensor.empty()) return tensor;
  Tensor copy = memory.allocate(tensor.dtype(), tensor.shape());
  memory.copy(tensor.address(), tensor.byte_size(), copy.address());
  return copy;
}

struct VendorType {
  BlasType type;
  const char* format;  // whose first plane holds such numbers
};

VendorType vendor_type(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::kF16:
      return {BlasType::kF16, "f16"};
    case Arithmetic::kBf16:
      return {BlasType::kBf16, "bf16"};
    default:
      NIBBLE_CHECK(arithmetic == Arithmetic::kFp8);
      return {BlasType::kFp8, "fp8_e4m3_channel"};
  }
}

class CudaVendorProducts final : public VendorProducts {
 public:
  CudaVendorProducts(Backend& backend, Arithmetic arithmetic, std::int64_t most_m,
                     std::int64_t rows, std::int64_t cols, std::int64_t copies)
      : queue_(*queue_of(backend)), rows_(rows), cols_(cols) {
    const VendorType type = vendor_type(arithmetic);
    type_ = type.type;
    DeviceMemory& memory = backend.memory();
    const FormatPtr format = parse_weight_format(type.format);
    x_ = memory.upload(random_weight(format, most_m, cols, 1).planes[0]);
    weights_.push_back(memory.upload(random_weight(format, rows, cols, 1).planes[0]));
    while (std::ssize(weights_) < copies) weights_.push_back(copy_of(weights_[0], memory));
    y_ = memory.allocate(DType::kF16, {most_m, rows});
  }

  int algorithms(std::int64_t m) override { return Blas::get()->algorithms(product(m, 0)); }

  void issue(std::int64_t m, int algorithm) override {
    BlasProduct args = product(m, algorithm);
    args.workspace = queue_.workspace(kBlasWorkspace);
    for (const Tensor& weight : weights_) {
      args.w = weight.address();
      queue_.launch("the vendor's product", args, multiply);
    }
  }

  std::int64_t copies() const override { return std::ssize(weights_); }

 private:
  BlasProduct product(std::int64_t m, int algorithm) {
    BlasProduct args;
    args.blas = Blas::get();
    args.w = weights_[0].address();
    args.x = x_.address();
    args.y = y_.address();
    args.m = m;
    args.rows = rows_;
    args.cols = cols_;
    args.y_stride = rows_;
    args.workspace_bytes = kBlasWorkspace;
    args.type = type_;
    args.half_results = 1;
    args.algorithm = algorithm;
    return args;
  }

  DeviceQueue& queue_;
  std::int64_t rows_;
  std::int64_t cols_;
  BlasType type_ = BlasType::kBf16;
  Tensor x_;
  std::vector<Tensor> weights_;
  Tensor y_;
};

class CudaTimer final : public CardTimer {
 public:
  explicit CudaTimer(Backend& backend) : backend_(backend) {
    int device = 0;
    check(cudaGetDevice(&device), "device");
    char address[32] = {};
    check(cudaDeviceGetPCIBusId(address, sizeof(address), device), "device");
    nvml_ = Nvml::open(address);
  }

  Times time(Backend& backend, const std::function<void()>& step, int plays,
             bool barriers) override {
    DeviceQueue& queue = *queue_of(backend);
    const std::optional<double> card = queue.time(step, plays, barriers);
    const auto start = std::chrono::steady_clock::now();
    backend.run_step(step);
    check(cudaStreamSynchronize(queue.stream()), "device");
    const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
    return {card ? *card : wall.count(), wall.count()};
  }

  LinearWeight copy(const LinearWeight& weight) override {
    DeviceMemory& memory = backend_.memory();
    LinearWeight copy = weight;
    for (Tensor& plane : copy.canonical.planes) plane = copy_of(plane, memory);
    if (const auto* packed = dynamic_cast<const DeviceWeight*>(weight.packed.get())) {
      auto own = std::make_shared<DeviceWeight>(*packed);
      if (own->fragments) {
        FragmentWeight& fragments = *own->fragments;
        for (Tensor* plane : {&fragments.codes, &fragments.scales, &fragments.zeros}) {
          *plane = copy_of(*plane, memory);
        }
      }
      if (own->bytes) {
        for (Tensor* plane : {&own->bytes->codes, &own->bytes->scales}) {
          *plane = copy_of(*plane, memory);
        }
      }
      copy.packed = std::move(own);
    }
    return copy;
  }

  std::unique_ptr<VendorProducts> vendor_products(Arithmetic type, std::int64_t most_m,
                                                  std::int64_t rows, std::int64_t cols,
                                                  std::int64_t copies) override {
    if (Blas::get() == nullptr) return nullptr;
    return std::make_unique<CudaVendorProducts>(backend_, type, most_m, rows, cols, copies);
  }

  CardState state() override { return nvml_ != nullptr ? nvml_->state() : CardState{}; }

 private:
  Backend& backend_;
  std::unique_ptr<Nvml> nvml_;
};

}  // namespace
}  // namespace cuda

std::unique_ptr<CardTimer> open_card_timer(Backend& backend) {
  if (cuda::queue_of(backend) == nullptr) return nullptr;
  return std::make_unique<cuda::CudaTimer>(backend);
}

}  // namespace nibble
