#include "backends/cpu/panel_weight.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/weight_view.h"
#include "formats/affine.h"

namespace nibble::cpu {
namespace {

constexpr std::int64_t kUnitBytes = 4 * kPanelRows;

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

}  // namespace

std::shared_ptr<const PanelWeight> PanelWeight::pack(const QuantTensor& weight, ThreadPool& pool) {
  const WeightDescriptor& descriptor = weight.format->descriptor();
  if (descriptor.element.kind != ElementKind::kInt) return nullptr;
  const Scheme& scheme = descriptor.scheme;
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

  const std::int64_t panels = (weight.rows + kPanelRows - 1) / kPanelRows;
  const bool zeros = view.nibbles || (!scheme.symmetric && descriptor.element.bits == 8);
  result->codes_ = Tensor::allocate_huge(DType::kU8, {panels, view.panel_bytes});
  result->scales_ = Tensor::allocate(scheme.scale_type, {panels, groups, kPanelRows});
  if (zeros) result->zeros_ = Tensor::allocate(DType::kU8, {panels, groups, kPanelRows});
  pool.parallel_for(panels, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) result->pack_panel(weight, panel);
  });
  view.codes = result->codes_.data<unsigned char>();
  view.scales = reinterpret_cast<const unsigned char*>(result->scales_.bytes().data());
  if (zeros) view.zeros = result->zeros_.data<signed char>();
  return result;
}

void PanelWeight::pack_panel(const QuantTensor& weight, std::int64_t panel) {
  const WeightDescriptor& descriptor = weight.format->descriptor();
  const int bits = descriptor.element.bits;
  const bool per_tensor = descriptor.scheme.granularity == Granularity::kTensor;
  const std::size_t scale_size = dtype_size(descriptor.scheme.scale_type);
  const std::int64_t row_bytes = weight.planes[0].dim(1) * 4;
  const std::byte* stored = weight.planes[0].bytes().data();
  const std::byte* scales = weight.planes[1].bytes().data();
  auto* codes = codes_.mutable_data<unsigned char>() + panel * view_.panel_bytes;
  auto* panel_scales = const_cast<std::byte*>(scales_.bytes().data());
  std::fill_n(codes, view_.panel_bytes, static_cast<unsigned char>(0));
  std::vector<std::uint8_t> row_codes(static_cast<std::size_t>(weight.cols));

  for (std::int64_t r = 0; r < kPanelRows; ++r) {
    const std::int64_t row = panel * kPanelRows + r;
    const bool exists = row < weight.rows;
    if (exists) unpack_codes(stored + row * row_bytes, bits, 0, weight.cols, row_codes.data());
    for (std::int64_t g = 0; g < view_.groups; ++g) {
      const std::int64_t from = per_tensor ? 0 : row * view_.groups + g;
      const std::int64_t to = (panel * view_.groups + g) * kPanelRows + r;
      std::byte* scale = panel_scales + to * static_cast<std::int64_t>(scale_size);
      Recoding recoding;
      if (exists) {
        std::memcpy(scale, scales + from * static_cast<std::int64_t>(scale_size), scale_size);
        const int zero =
            descriptor.scheme.symmetric
                ? 1 << (bits - 1)
                : std::to_integer<int>(weight.planes[2].bytes()[static_cast<std::size_t>(from)]);
        recoding = recode(view_.nibbles, bits, zero);
      } else {
        std::memset(scale, 0, scale_size);
      }
      if (!zeros_.empty()) {
        zeros_.mutable_data<std::uint8_t>()[to] = static_cast<std::uint8_t>(recoding.zero);
      }
      if (!exists) continue;
      for (std::int64_t k = g * view_.group; k < (g + 1) * view_.group; ++k) {
        const int value = row_codes[static_cast<std::size_t>(k)] - recoding.shift;
        if (view_.nibbles) {
          unsigned char& byte = codes[k / 8 * kUnitBytes + r * 4 + k % 4];
          byte = static_cast<unsigned char>(byte | (value << (k % 8 < 4 ? 0 : 4)));
        } else {
          codes[k / 4 * kUnitBytes + r * 4 + k % 4] = static_cast<unsigned char>(value);
        }
      }
    }
  }
}

}  // namespace nibble::cpu
