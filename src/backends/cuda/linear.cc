// Implementations of linear: which kernel takes which weights, and how many rows of x.
#include <algorithm>
#include <utility>

#include "backends/cuda/blas.h"
#include "backends/cuda/impls.h"
#include "backends/cuda/kernels/decode_weight.h"
#include "backends/cuda/kernels/dense_linear.h"
#include "backends/cuda/kernels/round_rows.h"
#include "backends/cuda/kernels/row_ops.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/weight.h"

namespace nibble::cuda {
namespace {

constexpr std::size_t kBlasWorkspace = std::size_t{32} << 20;

std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

// Parts of one op's workspace.
class Workspace {
 public:
  Workspace(DeviceQueue& queue, std::size_t bytes)
      : next_(static_cast<std::byte*>(queue.workspace(bytes))) {}
  void* take(std::size_t bytes) { return std::exchange(next_, next_ + aligned(bytes)); }

 private:
  std::byte* next_;
};

bool is_plain(const LinearArgs& args) {
  return w4_of(*args.w) == nullptr && args.w->canonical.format->is_float();
}

DType stored_type(const LinearArgs& args) {
  return args.w->canonical.format->descriptor().element.float_type;
}

// x rounded to 16 bits, in the workspace.
void round_x(const LinearArgs& args, bool half, void* to, DeviceQueue& queue) {
  RoundRows rows;
  rows.x = args.x;
  rows.y = to;
  rows.rows = args.m;
  rows.cols = args.w->canonical.cols;
  rows.x_stride = args.x_stride;
  rows.half = half;
  rows.dependent_launch = true;
  queue.launch("round_rows", rows, round_rows);
}

void decode(const LinearArgs& args, FloatType type, void* out, DeviceQueue& queue) {
  DecodeWeight decode;
  decode.weight = planes_of(args.w->canonical);
  decode.rows = args.w->canonical.rows;
  decode.out = out;
  decode.type = static_cast<std::int64_t>(type);
  queue.launch("decode", decode, decode_weight);
}

DenseLinear dense_linear(const LinearArgs& args) {
  DenseLinear linear;
  linear.x = args.x;
  linear.bias = args.bias;
  linear.y = args.y;
  linear.x_stride = args.x_stride;
  linear.y_stride = args.y_stride;
  linear.m = args.m;
  linear.rows = args.w->canonical.rows;
  linear.cols = args.w->canonical.cols;
  linear.accumulate = args.accumulate;
  if (is_plain(args)) {
    const WeightPlanes planes = planes_of(args.w->canonical);
    linear.w = planes.data;
    linear.type = planes.type;
  }
  return linear;
}

bool rounds(const DeviceCaps& caps) { return !caps.exact_activations; }

// ---- stream: few rows of x, plain weights, float32

Support stream_supports(const LinearArgs& args, const DeviceCaps&) {
  if (!is_plain(args)) return Support::no("weights are not plain floats");
  const char* const why = stream_linear_unsupported(dense_linear(args));
  return why == nullptr ? Support::yes() : Support::no(why);
}

void run_stream(const LinearArgs& args, ExecContext& context) {
  context.queue->launch("linear", dense_linear(args), stream_linear);
}

// ---- blas: the vendor's product of 16-bit numbers

Support blas_supports(const LinearArgs& args, const DeviceCaps& caps) {
  if (caps.exact_activations) return Support::no("it rounds activations");
  if (!caps.device_blas) return Support::no("there is no libcublasLt.so.13");
  if (w4_of(*args.w) != nullptr) return Support::no("the weight was repacked");
  if (!Blas::takes(args.w->canonical.cols)) return Support::no("columns are no multiple of 8");
  return Support::yes();
}

void run_blas(const LinearArgs& args, ExecContext& context) {
  DeviceQueue& queue = *context.queue;
  const QuantTensor& w = args.w->canonical;
  if (args.m == 0 || w.rows == 0) return;
  const bool half = is_plain(args) && stored_type(args) == DType::kF16;
  const bool as_stored = is_plain(args) && stored_type(args) != DType::kF32;
  const auto x_bytes = static_cast<std::size_t>(2 * args.m * w.cols);
  const auto w_bytes = as_stored ? 0 : static_cast<std::size_t>(2 * w.rows * w.cols);
  Workspace workspace(queue, aligned(x_bytes) + aligned(w_bytes) + kBlasWorkspace);
  BlasProduct product;
  void* const x = workspace.take(x_bytes);
  void* const decoded = workspace.take(w_bytes);
  product.w = as_stored ? w.planes[0].address() : decoded;
  product.x = x;
  product.workspace = workspace.take(kBlasWorkspace);
  product.workspace_bytes = kBlasWorkspace;
  if (!as_stored) decode(args, FloatType::kBF16, decoded, queue);
  round_x(args, half, x, queue);
  if (args.bias != nullptr) {
    queue.launch("bias",
                 BiasRows{args.bias, args.y, args.y_stride, args.m, w.rows, args.accumulate},
                 bias_rows);
  }
  product.blas = Blas::get();
  product.y = args.y;
  product.m = args.m;
  product.rows = w.rows;
  product.cols = w.cols;
  product.y_stride = args.y_stride;
  product.bf16 = !half;
  product.accumulate = args.accumulate || args.bias != nullptr;
  queue.launch("linear", product, multiply);
}

// ---- tile: everything that has canonical planes, float32

Support tile_supports(const LinearArgs& args, const DeviceCaps&) {
  return w4_of(*args.w) == nullptr ? Support::yes() : Support::no("the weight was repacked");
}

void run_tile(const LinearArgs& args, ExecContext& context) {
  DenseLinear linear = dense_linear(args);
  if (linear.m == 0 || linear.rows == 0) return;
  if (!is_plain(args)) {
    const auto bytes = static_cast<std::size_t>(4 * linear.rows * linear.cols);
    void* const decoded = context.queue->workspace(bytes);
    decode(args, FloatType::kF32, decoded, *context.queue);
    linear.w = decoded;
  }
  context.queue->launch("linear", linear, tile_linear);
}

}  // namespace

ImplList<LinearArgs> linear_impls() {
  static constexpr Impl<LinearArgs> kImpls[] = {
      {"stream", stream_supports, run_stream},
      {"blas", blas_supports, run_blas, Arithmetic::kBf16, rounds},
      {"tile", tile_supports, run_tile},
  };
  return kImpls;
}

}  // namespace nibble::cuda
