#include "backends/cpu/panel_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "backends/cpu/panel_codes.h"
#include "backends/cpu/rounding.h"
#include "backends/cpu/weight_view.h"
#include "formats/affine.h"

namespace nibble::cpu {
namespace {

// Values of a group as the kernels see them: bytes hold code - shift, nibbles the code, and `zero`
// remains to be subtracted.
struct Recoding {
  int shift = 0;
  int zero = 0;
};

Recoding recode(bool nibbles, int bits, int zero) {
  if (nibbles) return {0, zero};
  if (bits < 8) return {zero, 0};  // the difference fits a signed byte
  return {128, zero - 128};
}

// One value of a row in its place.
void place_value(bool nibbles, int value, std::int64_t k, unsigned char* codes) {
  if (nibbles) {
    unsigned char& byte = codes[k / 8 * kUnitBytes + k % 4];
    byte = static_cast<unsigned char>(byte | (value << (k % 8 < 4 ? 0 : 4)));
  } else {
    codes[k / 4 * kUnitBytes + k % 4] = static_cast<unsigned char>(value);
  }
}

}  // namespace

std::shared_ptr<const PanelWeight> PanelWeight::pack(const QuantTensor& weight, ThreadPool& pool,
                                                     const PackedSlot& slot) {
  const WeightDescriptor& descriptor = weight.format->descriptor();
  if (descriptor.element.kind != ElementKind::kInt) return nullptr;
  const Scheme& scheme = descriptor.scheme;
  if (scheme.granularity == Granularity::kBlock) return nullptr;
  const std::int64_t groups = groups_per_row(scheme, weight.cols);
  const std::int64_t group = weight.cols / groups;
  if (group % kInt8Block != 0) return nullptr;

  std::shared_ptr<PanelWeight> result(new PanelWeight);
  PanelView& view = result->view_;
  view.rows = weight.rows;
  view.cols = weight.cols;
  view.nibbles = descriptor.element.bits <= 4;
  view.panel_bytes = kPanelRows * weight.cols / (view.nibbles ? 2 : 1);
  view.scale_type = storage_of(scheme.scale_type);
  view.group = group;
  view.groups = groups;

  const std::int64_t panels = ceil_div(weight.rows, kPanelRows);
  const Shape numbers = {panels, groups, kPanelRows};
  std::vector<PackedPlane> planes = {
      {"codes", DType::kU8, {panels, view.panel_bytes}, &result->codes_},
      {"scales", scheme.scale_type, numbers, &result->scales_}};
  if (view.nibbles || (!scheme.symmetric && descriptor.element.bits == 8)) {
    planes.push_back({"zeros", DType::kU8, numbers, &result->zeros_});
  }
  // The format is named because some of different meaning have planes of equal size.
  const std::string layout = fmt::format("panels{}.1:{}", kPanelRows, weight.format->name());
  if (!load_planes(slot, layout, planes)) {
    result->pack_planes(weight, pool, planes);
    save_planes(slot, layout, planes);
  }
  view.codes = reinterpret_cast<const unsigned char*>(result->codes_.bytes().data());
  view.scales = reinterpret_cast<const unsigned char*>(result->scales_.bytes().data());
  if (!result->zeros_.empty()) {
    view.zeros = reinterpret_cast<const signed char*>(result->zeros_.bytes().data());
  }
  return result;
}

// Kernels go through the panels in the same kind of loop, so on a machine with several memory nodes
// each panel lies where the thread is that will read it: a page belongs to who writes it first.
// Huge pages would be too coarse for that in all but large weights.
void PanelWeight::pack_planes(const QuantTensor& weight, ThreadPool& pool,
                              std::span<const PackedPlane> planes) {
  constexpr std::int64_t kHugePagesPay = std::int64_t{16} << 20;  // bytes a thread
  for (const PackedPlane& plane : planes) {
    const std::int64_t bytes = view_.panel_bytes * plane.shape[0];
    const bool huge = pool.nodes() == 1 || bytes >= kHugePagesPay * pool.threads();
    *plane.tensor = huge && plane.tensor == &codes_
                        ? Tensor::allocate_huge(plane.dtype, plane.shape)
                        : Tensor::allocate(plane.dtype, plane.shape);
  }
  const std::int64_t panels = codes_.dim(0);
  pool.parallel_for(panels, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) pack_panel(weight, panel);
  });
}

void PanelWeight::pack_panel(const QuantTensor& weight, std::int64_t panel) {
  auto* codes = codes_.mutable_data<unsigned char>() + panel * view_.panel_bytes;
  std::fill_n(codes, view_.panel_bytes, static_cast<unsigned char>(0));
  std::vector<int> shifts(static_cast<std::size_t>(view_.groups));
  for (std::int64_t r = 0; r < kPanelRows; ++r) {
    const std::int64_t row = panel * kPanelRows + r;
    for (std::int64_t g = 0; g < view_.groups; ++g) {
      const std::int64_t to = (panel * view_.groups + g) * kPanelRows + r;
      if (row < weight.rows) {
        shifts[static_cast<std::size_t>(g)] = pack_numbers(weight, row, g, to);
      } else {
        clear_numbers(to);
      }
    }
    if (row < weight.rows) pack_codes_of_row(weight, row, shifts, codes + 4 * r);
  }
}

void PanelWeight::pack_codes_of_row(const QuantTensor& weight, std::int64_t row,
                                    std::span<const int> shifts, unsigned char* codes) const {
  const std::byte* stored = weight.planes[0].bytes().data() + row * weight.planes[0].dim(1) * 4;
  const int bits = weight.format->descriptor().element.bits;
  if (bits == 4) return place_nibbles(stored, weight.cols, codes);
  if (bits == 8) return place_bytes(stored, weight.cols, /*flipped=*/128, codes);  // less 128
  std::vector<std::uint8_t> values(static_cast<std::size_t>(weight.cols));
  unpack_codes(stored, bits, 0, weight.cols, values.data());
  for (std::int64_t k = 0; k < weight.cols; ++k) {
    const int shift = shifts[static_cast<std::size_t>(k / view_.group)];
    place_value(view_.nibbles, values[static_cast<std::size_t>(k)] - shift, k, codes);
  }
}

int PanelWeight::pack_numbers(const QuantTensor& weight, std::int64_t row, std::int64_t group,
                              std::int64_t to) {
  const WeightDescriptor& descriptor = weight.format->descriptor();
  const bool per_tensor = descriptor.scheme.granularity == Granularity::kTensor;
  const std::int64_t from = per_tensor ? 0 : row * view_.groups + group;
  const auto size = static_cast<std::int64_t>(dtype_size(descriptor.scheme.scale_type));
  std::memcpy(scale_at(to), weight.planes[1].bytes().data() + from * size,
              static_cast<std::size_t>(size));
  const int bits = descriptor.element.bits;
  int zero = 1 << (bits - 1);
  if (!descriptor.scheme.symmetric) {
    zero = std::to_integer<int>(weight.planes[2].bytes()[static_cast<std::size_t>(from)]);
  }
  const Recoding recoding = recode(view_.nibbles, bits, zero);
  if (!zeros_.empty()) {
    zeros_.mutable_data<std::uint8_t>()[to] = static_cast<std::uint8_t>(recoding.zero);
  }
  return recoding.shift;
}

void PanelWeight::clear_numbers(std::int64_t to) {
  std::memset(scale_at(to), 0, dtype_size(scales_.dtype()));
  if (!zeros_.empty()) zeros_.mutable_data<std::uint8_t>()[to] = 0;
}

std::byte* PanelWeight::scale_at(std::int64_t index) {
  return const_cast<std::byte*>(scales_.bytes().data()) +
         index * static_cast<std::int64_t>(dtype_size(scales_.dtype()));
}

const PanelWeight* panels_of(const LinearArgs& args) {
  return dynamic_cast<const PanelWeight*>(args.w->packed.get());
}

Support panels_fit(const TokenKernels& kernels, const LinearArgs& args) {
  const PanelWeight* const weight = panels_of(args);
  if (weight == nullptr) return Support::no("the weight is not in panels of integers");
  if (!weight->view().nibbles && !kernels.bytes) return Support::no("products of bytes overflow");
  return Support::yes();
}

std::vector<std::int64_t> panel_counts(std::span<const LinearArgs> calls) {
  std::vector<std::int64_t> counts;
  counts.reserve(calls.size());
  for (const LinearArgs& call : calls) {
    counts.push_back(ceil_div(call.w->canonical.rows, kPanelRows));
  }
  return counts;
}

PanelOutput panel_output(const LinearArgs& call, std::int64_t begin) {
  return {call.bias, call.y + begin * call.y_stride, call.y_stride, call.accumulate};
}

}  // namespace nibble::cpu
