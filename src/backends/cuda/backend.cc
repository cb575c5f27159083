#include <utility>

#include "backends/cuda.h"
#include "backends/cuda/blas.h"
#include "backends/cuda/chain.h"
#include "backends/cuda/impls.h"
#include "backends/cuda/memory.h"
#include "backends/cuda/queue_of.h"
#include "backends/cuda/status.h"
#include "backends/cuda/weight.h"
#include "backends/cuda/weight_codec.h"
#include "backends/dispatch.h"

namespace nibble {
namespace {

constexpr std::size_t kMaxFreeBufferBytes = std::size_t{4} << 30;

// Makes the device the current one of this thread.
DeviceCaps use_device(int device, const BackendOptions& options) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    (void)cudaGetLastError();
    fail(ErrorKind::kUnsupported,
         "device cuda:{}: this machine has no NVIDIA GPU that a driver for CUDA {} can use; use "
         "--device cpu",
         device, CUDART_VERSION / 1000);
  }
  if (device >= count) {
    fail(ErrorKind::kUsage, "device cuda:{}: this machine has {}, from cuda:0", device, count);
  }
  cuda::check(cudaSetDevice(device), "device");
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, device), "device");
  DeviceCaps caps;
  caps.compute_capability = 10 * properties.major + properties.minor;
  caps.multiprocessors = properties.multiProcessorCount;
  constexpr int kLeast = 80;
  if (caps.compute_capability < kLeast) {
    fail(ErrorKind::kUnsupported,
         "device cuda:{}: {} has compute capability {}.{}, 8.0 is needed; use --device cpu", device,
         properties.name, properties.major, properties.minor);
  }
  caps.device_blas = cuda::Blas::get() != nullptr;
  caps.exact_activations = options.exact;
  return caps;
}

std::size_t memory_limit(const BackendOptions& options) {
  std::size_t free = 0;
  std::size_t total = 0;
  cuda::check(cudaMemGetInfo(&free, &total), "device memory");
  return options.gpu_memory_bytes == 0 ? total : std::min(total, options.gpu_memory_bytes);
}

class CudaBackend final : public Backend {
 public:
  CudaBackend(int device, const BackendOptions& options)
      : Backend(kMaxFreeBufferBytes),
        caps_(use_device(device, options)),
        pool_(options.threads),
        memory_(queue_.stream(), memory_limit(options)),
        context_{pool_, caps_, &queue_},
        log_(options.log) {
    if (options.verbose_dispatch) verbose_ = options.log;
    ops_.force(options.force);
  }

  const DeviceCaps& caps() const override { return caps_; }
  ThreadPool& pool() override { return pool_; }
  DeviceMemory& memory() override { return memory_; }
  DeviceQueue& queue() { return queue_; }

#define NIBBLE_OP(name, Args)                                                       \
  void run(const Args& args) override {                                             \
    queue_.run([&] { ops_.name.run(args, context_, verbose_); }, /*record=*/false); \
  }
#include "ops/ops.def"
#undef NIBBLE_OP

  void run_together(std::span<const LinearArgs> calls) override {
    queue_.run([&] { ops_.linear.run_together(calls, context_, verbose_); }, /*record=*/false);
  }

  void run_chain(std::span<const ChainLink> links) override {
    queue_.run([&] { cuda::run_chain(links, ops_, context_, verbose_); }, /*record=*/false);
  }

  void run_step(const std::function<void()>& step) override { queue_.run(step, /*record=*/true); }

  using Backend::prepare;
  LinearWeight prepare(QuantTensor weight, const std::string&,
                       const ActivationFormat* activations) override {
    auto packed = std::make_shared<cuda::DeviceWeight>();
    if (repacks(*weight.format) && weight.planes[0].place() == Place::kHost) {
      if (activations != nullptr && multiplies_bytes()) {
        packed->bytes = cuda::upload_bytes(weight, *activations, pool_, memory_);
      }
      if (!packed->bytes) packed->fragments = cuda::upload_fragments(weight, pool_, memory_);
    }
    if (packed->fragments || packed->bytes) {
      weight.planes.clear();
    } else {
      weight = prepare_table(std::move(weight));
    }
    return {std::move(weight), std::move(packed)};
  }

  QuantTensor prepare_table(QuantTensor table) override {
    if (!cuda::has_decoder(*table.format) && !std::exchange(told_, true)) {
      nibble::log(log_, LogLevel::kWarning,
                  fmt::format("no kernel of the GPU decodes {}; such weights are kept decoded, in "
                              "16 or 32 bits each",
                              table.format->name()));
    }
    return cuda::upload_planes(std::move(table), memory_);
  }

  bool encodes(const Format& format, std::int64_t rows, std::int64_t cols) const override {
    return cuda::encode_fits(format, rows, cols).ok;
  }

  // The card is fed as fast as weights are repacked; nothing is kept on disk for it.
  void use_packed_store(std::shared_ptr<PackedStore>) override {}

  Arithmetic arithmetic_of(const LinearArgs& args) const override {
    return ops_.linear.arithmetic_of(args, caps_);
  }

  std::vector<ImplRow> impl_rows() const override { return ops_.impl_rows(caps_); }

 private:
  // Whether the kernels for repacked weights take every number of rows here.
  bool repacks(const Format& format) const {
    const bool large = caps_.compute_capability == 90 && format.descriptor().element.bits == 4;
    return !caps_.exact_activations && (large || caps_.device_blas);
  }

  // Whether the vendor's library multiplies bytes of either type here.
  bool multiplies_bytes() const { return caps_.device_blas && caps_.compute_capability >= 89; }

  DeviceCaps caps_;
  ThreadPool pool_;
  DeviceQueue queue_;
  cuda::CudaMemory memory_;
  ExecContext context_;
  LogSink log_;
  bool told_ = false;  // that a format is kept decoded
  LogSink verbose_;
  OpTable ops_ = {
#define NIBBLE_OP(name, Args) .name = OpDispatcher<Args>(#name, cuda::name##_impls()),
#include "ops/ops.def"
#undef NIBBLE_OP
  };
};

}  // namespace

DeviceQueue* cuda::queue_of(Backend& backend) {
  auto* const on_card = dynamic_cast<CudaBackend*>(&backend);
  return on_card != nullptr ? &on_card->queue() : nullptr;
}

bool cuda_available() {
  int count = 0;
  const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  if (!found) (void)cudaGetLastError();
  return found;
}

std::unique_ptr<Backend> make_cuda_backend(int device, const BackendOptions& options) {
  return std::make_unique<CudaBackend>(device, options);
}

}  // namespace nibble
