// Implementations of linear: which kernel takes which weights, and how many rows of x.
#include <algorithm>
#include <utility>

#include "backends/cuda/blas.h"
#include "backends/cuda/formed_linear.h"
#include "backends/cuda/fragment_linear.h"
#include "backends/cuda/impls.h"
#include "backends/cuda/kernels/alignment.h"
#include "backends/cuda/kernels/decode_fragments.h"
#include "backends/cuda/kernels/decode_weight.h"
#include "backends/cuda/kernels/dense_linear.h"
#include "backends/cuda/kernels/stream_codes.h"
#include "backends/cuda/linear_parts.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/rounded_linear.h"
#include "backends/cuda/weight.h"
#include "ops/linear_input.h"

namespace nibble::cuda {
namespace {

bool is_plain(const LinearArgs& args) {
  return fragments_of(*args.w) == nullptr && args.w->canonical.format->is_float();
}

DType stored_type(const LinearArgs& args) {
  return args.w->canonical.format->descriptor().element.float_type;
}

void decode(const LinearArgs& args, FloatType type, void* out, DeviceQueue& queue) {
  if (const FragmentWeight* const fragments = fragments_of(*args.w)) {
    NIBBLE_CHECK(type == FloatType::kBF16);
    queue.launch("decode", DecodeFragments{matrix_of(*fragments), out, true}, decode_fragments);
    return;
  }
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

// ---- stream: few rows of x, plain weights, float32

Support stream_supports(const LinearArgs& args, const DeviceCaps&) {
  if (const Support input = takes_input(args); !input.ok) return input;
  if (!is_plain(args)) return Support::no("weights are not plain floats");
  const char* const why = stream_linear_unsupported(dense_linear(args));
  return why == nullptr ? Support::yes() : Support::no(why);
}

void run_stream(const LinearArgs& args, ExecContext& context) {
  context.queue->launch("linear", dense_linear(args), stream_linear);
}

// ---- stream_codes: few rows of x, weights on planes of codes, float32

CodesLinear codes_linear(const LinearArgs& args) {
  CodesLinear linear;
  linear.w = planes_of(args.w->canonical);
  linear.x = args.x;
  linear.bias = args.bias;
  linear.y = args.y;
  linear.x_stride = args.x_stride;
  linear.y_stride = args.y_stride;
  linear.m = args.m;
  linear.accumulate = args.accumulate;
  return linear;
}

Support codes_supports(const LinearArgs& args, const DeviceCaps&) {
  if (const Support input = takes_input(args); !input.ok) return input;
  if (args.w->canonical.planes.empty()) return Support::no("the weight was repacked");
  if (is_plain(args)) return Support::no("weights are plain floats");
  const char* const why = stream_codes_unsupported(codes_linear(args));
  return why == nullptr ? Support::yes() : Support::no(why);
}

void run_codes(const LinearArgs& args, ExecContext& context) {
  context.queue->launch("linear", codes_linear(args), stream_codes);
}

// ---- blas: the vendor's product of 16-bit numbers

bool is_half(const LinearArgs& args) { return is_plain(args) && stored_type(args) == DType::kF16; }

template <bool kHalf>
Support blas_supports(const LinearArgs& args, const DeviceCaps& caps) {
  if (const Support input = takes_input(args); !input.ok) return input;
  if (bytes_of(*args.w) != nullptr) return Support::no("the weight is kept as bytes");
  if (kHalf != is_half(args)) return Support::no(kHalf ? "weights are not f16" : "weights are f16");
  if (caps.exact_activations) return Support::no("it rounds activations");
  if (!caps.device_blas) return Support::no("there is no libcublasLt.so.13");
  if (!Blas::takes(args.w->canonical.cols)) return Support::no("columns are no multiple of 8");
  return Support::yes();
}

// `given`: x in 16 bits, if it is there.
void multiply_blas(const LinearArgs& args, const void* given, ExecContext& context) {
  DeviceQueue& queue = *context.queue;
  const QuantTensor& w = args.w->canonical;
  if (args.m == 0 || w.rows == 0) return;
  const RowForm form = is_half(args) ? RowForm::kF16 : RowForm::kBf16;
  const bool as_stored = is_plain(args) && stored_type(args) != DType::kF32;
  const std::size_t x_bytes = given == nullptr ? product_bytes(form, args.m, w.cols) : 0;
  const auto w_bytes = as_stored ? 0 : static_cast<std::size_t>(2 * w.rows * w.cols);
  Workspace workspace(queue, aligned(x_bytes) + aligned(w_bytes) + kBlasWorkspace);
  BlasProduct product;
  void* const x = workspace.take(x_bytes);
  void* const decoded = workspace.take(w_bytes);
  product.w = as_stored ? w.planes[0].address() : decoded;
  product.x = given == nullptr ? x : given;
  product.workspace = workspace.take(kBlasWorkspace);
  product.workspace_bytes = kBlasWorkspace;
  if (!as_stored) decode(args, FloatType::kBF16, decoded, queue);
  if (given == nullptr) form_rows(args, product_rows_at(x, form, args.m, w.cols, 0), queue);
  if (args.bias != nullptr) {
    put_bias(args, queue);
  }
  product.blas = Blas::get();
  product.y = args.y;
  product.m = args.m;
  product.rows = w.rows;
  product.cols = w.cols;
  product.y_stride = args.y_stride;
  product.type = form == RowForm::kF16 ? BlasType::kF16 : BlasType::kBf16;
  product.accumulate = args.accumulate || args.bias != nullptr;
  queue.launch("linear", product, multiply);
}

void run_blas(const LinearArgs& args, ExecContext& context) {
  multiply_blas(args, nullptr, context);
}

void run_blas_formed(std::span<const LinearArgs> calls, const ProductRows& x,
                     ExecContext& context) {
  for (const LinearArgs& call : calls) multiply_blas(call, x.values, context);
}

// ---- bytes of activations and weights

template <ByteType kType>
Support bytes_supports(const LinearArgs& args, const DeviceCaps& caps) {
  return bytes_support(kType, args, caps);
}

// ---- tile: everything that has canonical planes, float32

Support tile_supports(const LinearArgs& args, const DeviceCaps&) {
  if (const Support input = takes_input(args); !input.ok) return input;
  return args.w->canonical.planes.empty() ? Support::no("the weight was repacked") : Support::yes();
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

bool is_hopper(const DeviceCaps& caps) { return rounds(caps) && caps.compute_capability == 90; }

}  // namespace

ImplList<LinearArgs> linear_impls() {
  static constexpr Impl<LinearArgs> kImpls[] = {
      {"w4_small", w4_small_supports, run_small, Arithmetic::kBf16Exact, rounds,
       run_small_together},
      {"w8_small", w8_small_supports, run_small, Arithmetic::kBf16Exact, rounds,
       run_small_together},
      {"w4_large", w4_large_supports, run_w4_large, Arithmetic::kBf16Scaled, is_hopper,
       run_w4_large_together},
      {"w4_fp8", w4_fp8_supports, run_w4_fp8, Arithmetic::kFp8, is_hopper, run_w4_fp8_together},
      {"stream", stream_supports, run_stream},
      {"stream_codes", codes_supports, run_codes},
      {"blas_f16", blas_supports<true>, run_blas, Arithmetic::kF16, rounds},
      {"blas_bf16", blas_supports<false>, run_blas, Arithmetic::kBf16, rounds},
      {"tile", tile_supports, run_tile},
      {"blas_int8", bytes_supports<ByteType::kInt8>, run_bytes, Arithmetic::kInt8, rounds,
       run_bytes_together},
      {"blas_fp8", bytes_supports<ByteType::kFp8>, run_bytes, Arithmetic::kFp8, rounds,
       run_bytes_together},
      {"rounded_first", rounded_support, run_rounded, Arithmetic::kBf16,
       [](const DeviceCaps&) { return true; }, run_rounded_together},
  };
  return kImpls;
}

const FormedLinear* formed_linear_of(std::string_view impl) {
  // Beyond, tiles of more tokens, which pairs cannot have, save more than an activation of its own
  // costs.
  constexpr std::int64_t kLargePairRows = 128;
  constexpr std::int64_t kFp8PairRows = 64;
  static constexpr FormedLinear kFormed[] = {
      {"w4_small", RowForm::kFloat32, nullptr, run_small_pair, INT64_MAX},
      {"w4_large", RowForm::kBf16, run_w4_large_formed, run_w4_large_pair, kLargePairRows},
      {"w4_fp8", RowForm::kFp8, run_w4_fp8_formed, run_w4_fp8_pair, kFp8PairRows},
      {"blas_f16", RowForm::kF16, run_blas_formed, nullptr, 0},
      {"blas_bf16", RowForm::kBf16, run_blas_formed, nullptr, 0},
      {"blas_int8", RowForm::kInt8Codes, run_bytes_formed, nullptr, 0},
      {"blas_fp8", RowForm::kFp8Codes, run_bytes_formed, nullptr, 0},
  };
  for (const FormedLinear& formed : kFormed) {
    if (formed.name == impl) return &formed;
  }
  return nullptr;
}

}  // namespace nibble::cuda
