// The ops that encode and decode weights.
#include "backends/cuda/weight_codec.h"

#include <cmath>

#include "backends/cuda/bound_grid.h"
#include "backends/cuda/impls.h"
#include "backends/cuda/kernels/alignment.h"
#include "backends/cuda/kernels/decode_weight.h"
#include "backends/cuda/kernels/encode_weight.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/weight.h"
#include "formats/table_format.h"

namespace nibble::cuda {
namespace {

bool is_power_of_two(std::int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

Support fits_layout(const WeightDescriptor& descriptor, std::int64_t rows, std::int64_t cols) {
  const Scheme& scheme = descriptor.scheme;
  constexpr std::int64_t kMostLanes = 32;
  if (cols % kEncodedColumns != 0 || rows >= std::int64_t{1} << 31) {
    return Support::no("columns are no multiple of 8, or there are too many rows");
  }
  if (cols * descriptor.element.bits % 32 != 0) return Support::no("rows of codes are padded");
  if (scheme.granularity == Granularity::kChannel) return Support::yes();
  if (scheme.granularity != Granularity::kGroup || !is_power_of_two(scheme.group) ||
      scheme.group < kEncodedColumns || scheme.group > kMostLanes * kEncodedColumns) {
    return Support::no("scales are neither by row nor by group of 8, 16 ... 256");
  }
  return Support::yes();
}

Support fits_rule(const WeightDescriptor& descriptor) {
  const Scheme& scheme = descriptor.scheme;
  const bool by_row = scheme.granularity == Granularity::kChannel;
  switch (scheme.rule) {
    case ScaleRule::kLeastError:
    case ScaleRule::kFourOverSix:
      return !by_row && scheme.group <= 32 && scheme.group >= 16 && descriptor.element.bits == 4
                 ? Support::yes()
                 : Support::no("a choice of scales by error, but for 4 bits in groups of 16 or 32");
    case ScaleRule::kMean:
      return Support::no("scales are means");
    default:
      return scheme.second_level == SecondLevel::kDynamic
                 ? Support::no("scales are encoded themselves")
                 : Support::yes();
  }
}

Support encode_supports(const EncodeArgs& args, const DeviceCaps&) {
  const QuantTensor& out = *args.out;
  if (!on_16_bytes(args.w) || !on_16_bytes(out.planes[0].address())) {
    return Support::no("weights or codes do not begin on 16 bytes");
  }
  return encode_fits(*out.format, out.rows, out.cols);
}

GroupScale group_scale(DType type) {
  if (type == DType::kF8E8M0) return GroupScale::kE8M0;
  return type == DType::kF8E4M3 ? GroupScale::kE4M3 : GroupScale::kFloat;
}

void set_table(const Format& format, EncodeWeight& encode) {
  const ScaleRule rule = format.descriptor().scheme.rule;
  const CodeTable& table = table_of(format);
  const TableView view = table.view();
  encode.top = table.max();
  encode.top_exponent = std::ilogb(table.max());
  encode.choice = rule == ScaleRule::kLeastError || rule == ScaleRule::kFourOverSix;
  encode.floor = rule == ScaleRule::kFloor || rule == ScaleRule::kLeastError;
  encode.other_top = 4;
  encode.largest_scale = rule == ScaleRule::kFourOverSix ? 256.0f : e4m3_table().max();
  if (encode.choice) std::ranges::copy(table.values(), encode.values);
  constexpr float kLeast = 0x1p-40f;
  if (view.rounding != nullptr && view.rounding->mantissa > 0 &&
      view.rounding->magic >= kLeast * 0x1p23f) {
    encode.elements = ElementCodes::kRounded;
    encode.rounding = *view.rounding;
    return;
  }
  if (view.bits == 4 && !encode.choice) {
    if (const auto grid = grid_of(view, table.max())) {
      encode.elements = ElementCodes::kGrid;
      encode.grid = *grid;
      return;
    }
  }
  encode.elements = ElementCodes::kBounds;
  NIBBLE_CHECK(view.leaves >= 2);
  std::copy_n(view.bounds, view.leaves, encode.table.bounds);
  std::copy_n(view.codes, view.ranks, encode.table.codes);
  encode.table.leaves = view.leaves;
  encode.table.zero_rank = view.zero_rank;
  encode.table.negative_zero = view.negative_zero;
}

void set_integers(const WeightDescriptor& descriptor, EncodeWeight& encode) {
  encode.top_inverse = 1.0 / ((1 << descriptor.element.bits) - 1);
  const int middle = 1 << (descriptor.element.bits - 1);
  if (descriptor.scheme.rule == ScaleRule::kStrict) encode.top_code = middle - 1;
  if (descriptor.scheme.rule == ScaleRule::kFull) encode.top_code = middle;
}

EncodeWeight encode_of(const EncodeArgs& args) {
  QuantTensor& out = *args.out;
  const WeightDescriptor& descriptor = out.format->descriptor();
  const Scheme& scheme = descriptor.scheme;
  EncodeWeight encode{};
  encode.w = args.w;
  encode.rows = out.rows;
  encode.cols = out.cols;
  encode.group = scheme.granularity == Granularity::kGroup ? scheme.group : out.cols;
  encode.codes = static_cast<std::uint32_t*>(out.planes[0].address());
  encode.scales = out.planes[1].address();
  encode.scale = group_scale(scheme.scale_type);
  if (encode.scale == GroupScale::kFloat) encode.float_type = float_type(scheme.scale_type);
  encode.bits = descriptor.element.bits;
  if (!out.format->is_affine()) {
    set_table(*out.format, encode);
    if (encode.scale == GroupScale::kE4M3) {
      encode.whole = static_cast<float*>(out.planes[2].address());
    }
    return encode;
  }
  set_integers(descriptor, encode);
  if (!scheme.symmetric) encode.zeros = static_cast<std::uint8_t*>(out.planes[2].address());
  return encode;
}

// What a tensor's planes hold, from the card or to it.
void copy_now(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
              cudaStream_t stream) {
  check(cudaMemcpyAsync(to, from, bytes, kind, stream), "copy of weights");
  check(cudaStreamSynchronize(stream), "device");
}

// By the host's processor, which also says what is wrong with weights that cannot be encoded.
void encode_on_host(const EncodeArgs& args, ExecContext& context) {
  context.queue->on_host([&] {
    const cudaStream_t stream = context.queue->stream();
    QuantTensor& out = *args.out;
    std::vector<float> w(static_cast<std::size_t>(out.rows * out.cols));
    copy_now(w.data(), args.w, w.size() * sizeof(float), cudaMemcpyDeviceToHost, stream);
    const Codec codec{&scalar_spans(), &context.pool};
    const QuantTensor encoded = out.format->encode(w.data(), out.rows, out.cols, codec);
    for (std::size_t i = 0; i < out.planes.size(); ++i) {
      const std::span<const std::byte> bytes = encoded.planes[i].bytes();
      copy_now(out.planes[i].address(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice, stream);
    }
  });
}

void encode_here(const EncodeArgs& args, ExecContext& context) {
  EncodeWeight encode = encode_of(args);
  encode.refused = static_cast<std::int32_t*>(context.queue->workspace(sizeof(std::int32_t)));
  context.queue->launch("encode", encode, encode_weight);
  bool refused = false;
  context.queue->on_host([&] {
    std::int32_t flag = 0;
    copy_now(&flag, encode.refused, sizeof(flag), cudaMemcpyDeviceToHost, context.queue->stream());
    refused = flag != 0;
  });
  if (refused) encode_on_host(args, context);
}

void decode_here(const DecodeArgs& args, ExecContext& context) {
  DecodeWeight decode;
  decode.weight = planes_of(*args.weight);
  decode.first_row = args.first_row;
  decode.rows = args.rows;
  decode.out = args.out;
  decode.type = static_cast<std::int64_t>(FloatType::kF32);
  context.queue->launch("decode", decode, decode_weight);
}

}  // namespace

Support encode_fits(const Format& format, std::int64_t rows, std::int64_t cols) {
  const WeightDescriptor& descriptor = format.descriptor();
  const ElementKind kind = descriptor.element.kind;
  if (kind != ElementKind::kInt && kind != ElementKind::kFloatBits &&
      kind != ElementKind::kCodebook) {
    return Support::no("elements are neither integers nor values of a fixed table");
  }
  const Support layout = fits_layout(descriptor, rows, cols);
  return layout.ok ? fits_rule(descriptor) : layout;
}

ImplList<EncodeArgs> encode_impls() {
  static constexpr Impl<EncodeArgs> kImpls[] = {
      {"cuda", encode_supports, encode_here},
      {"host", [](const EncodeArgs&, const DeviceCaps&) { return Support::yes(); },
       encode_on_host}};
  return kImpls;
}
ImplList<DecodeArgs> decode_impls() {
  static constexpr Impl<DecodeArgs> kImpls[] = {
      {"cuda", [](const DecodeArgs&, const DeviceCaps&) { return Support::yes(); }, decode_here}};
  return kImpls;
}

}  // namespace nibble::cuda
