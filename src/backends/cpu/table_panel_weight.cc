#include "backends/cpu/table_panel_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <bitset>
#include <cmath>
#include <cstring>
#include <optional>

#include "backends/cpu/panel_codes.h"
#include "backends/cpu/rounding.h"
#include "backends/cpu/weight_view.h"
#include "base/half.h"
#include "formats/affine.h"
#include "formats/code_table.h"
#include "formats/families.h"
#include "formats/table_format.h"

namespace nibble::cpu {
namespace {

// The tables of table_panel_kernels.h.
struct PanelTable {
  bool halves = false;
  int down = 0;
  float unit = 1;
  int mantissa = 0;
  std::vector<float> values = {}, steps = {};
};

// Whether some code of the weight is in the set.
bool holds_any(const QuantTensor& weight, const std::bitset<256>& set) {
  if (set.none()) return false;
  const unsigned char* const codes = bytes_of(weight.planes[0]);
  const std::int64_t row_bytes = weight.planes[0].dim(1) * 4;
  for (std::int64_t row = 0; row < weight.rows; ++row) {
    const unsigned char* const begin = codes + row * row_bytes;
    if (std::any_of(begin, begin + weight.cols, [&](unsigned char c) { return set[c]; })) {
      return true;
    }
  }
  return false;
}

// Of a float of 8 bits that is an F16 with fewer bits, and nothing if the weight holds a code of
// another value.
std::optional<PanelTable> halves_of_floats(const QuantTensor& weight, const CodeTable& codes) {
  const Element& element = weight.format->descriptor().element;
  if (element.kind != ElementKind::kFloatBits || !element.float_bits.has_sign) return std::nullopt;
  const int mantissa = element.float_bits.mantissa;
  if (mantissa != 2 && mantissa != 3) return std::nullopt;
  PanelTable table{.halves = true, .down = mantissa - 2};
  const auto half_of = [&](int code) {
    const int magnitude = (code & 0x7f) << 8 >> table.down;
    return to_float(f16{static_cast<std::uint16_t>((code & 0x80) << 8 | magnitude)});
  };
  const int one = 1 << mantissa;  // the first with an exponent
  table.unit = codes.value(one) / half_of(one);
  int exponent;
  if (std::frexp(table.unit, &exponent) != 0.5f) return std::nullopt;
  std::bitset<256> unlike;
  for (int code = 0; code < 256; ++code) {
    unlike[static_cast<std::size_t>(code)] = half_of(code) * table.unit != codes.value(code);
  }
  if (holds_any(weight, unlike)) return std::nullopt;
  return table;
}

// Of a float of 8 bits: steps and values of its binades, and nothing if the weight holds a code for
// which they do not give the value.
std::optional<PanelTable> table_of_floats(const QuantTensor& weight, const CodeTable& codes) {
  const Element& element = weight.format->descriptor().element;
  if (element.kind != ElementKind::kFloatBits) return std::nullopt;
  PanelTable table;
  table.mantissa = element.float_bits.mantissa;
  const int binades = 256 >> table.mantissa;
  if (table.mantissa < 1 || binades > 32) return std::nullopt;
  table.values.resize(32);
  table.steps.resize(32);
  std::bitset<256> unlike;
  for (int binade = 0; binade < binades; ++binade) {
    const int first = binade << table.mantissa;
    const auto at = static_cast<std::size_t>(binade);
    table.values[at] = codes.value(first);
    table.steps[at] = codes.value(first + 1) - codes.value(first);
    for (int above = 0; above < 1 << table.mantissa; ++above) {
      const float value = table.values[at] + static_cast<float>(above) * table.steps[at];
      unlike[static_cast<std::size_t>(first + above)] = value != codes.value(first + above);
    }
  }
  // What is above a code means nothing to kernels, which look at five bits.
  for (std::size_t i = static_cast<std::size_t>(binades); i < 32; ++i) {
    table.values[i] = table.values[i - static_cast<std::size_t>(binades)];
    table.steps[i] = table.steps[i - static_cast<std::size_t>(binades)];
  }
  if (holds_any(weight, unlike)) return std::nullopt;
  return table;
}

std::optional<PanelTable> panel_table(const QuantTensor& weight) {
  const Element& element = weight.format->descriptor().element;
  if (element.kind != ElementKind::kFloatBits && element.kind != ElementKind::kCodebook) {
    return std::nullopt;
  }
  const CodeTable& codes = table_of(*weight.format);
  if (codes.bits() == 8) {
    std::optional<PanelTable> halves = halves_of_floats(weight, codes);
    return halves ? std::move(halves) : table_of_floats(weight, codes);
  }
  if (codes.bits() != 4) return std::nullopt;
  return PanelTable{.values = {codes.values().begin(), codes.values().end()}};
}

// Scales as they go into panels: a plane of a number a row and group, or of one for every row.
struct PanelScales {
  PanelScale type = PanelScale::kF32;
  float factor = 1;
  std::vector<float> expanded;            // empty: those of the plane
  const unsigned char* stored = nullptr;  // [scale rows, groups]
  std::int64_t rows_per = 1;              // rows that share a scale
  std::int64_t groups = 1;
};

// Bytes that mean no positive number.
bool has_odd_bytes(const Tensor& plane, bool exponents) {
  return std::ranges::any_of(plane.bytes(), [exponents](std::byte b) {
    return std::to_integer<int>(b) >= (exponents ? 255 : 127);
  });
}

std::optional<PanelScales> panel_scales_of(const QuantTensor& weight) {
  const Scheme& scheme = weight.format->descriptor().scheme;
  PanelScales scales;
  const Tensor& plane = weight.planes[1];
  scales.stored = bytes_of(plane);
  switch (scheme.granularity) {
    case Granularity::kTensor:
      scales.rows_per = weight.rows;
      break;
    case Granularity::kBlock:
      scales.rows_per = scheme.block_rows;
      [[fallthrough]];
    case Granularity::kGroup:
      scales.groups = plane.dim(1);
      break;
    case Granularity::kChannel:
      break;
  }
  switch (scheme.scale_type) {
    case DType::kF32:
      return scales;
    case DType::kF16:
      scales.type = PanelScale::kF16;
      return scales;
    case DType::kBF16:
      scales.type = PanelScale::kBF16;
      return scales;
    case DType::kF8E8M0:
      scales.type = PanelScale::kE8M0;
      if (has_odd_bytes(plane, true)) return std::nullopt;
      return scales;
    case DType::kF8E4M3:
      scales.type = PanelScale::kE4M3;
      std::memcpy(&scales.factor, bytes_of(weight.planes[2]), sizeof(scales.factor));
      if (has_odd_bytes(plane, false)) return std::nullopt;
      return scales;
    default:
      scales.expanded = table_scales_of(weight);
      scales.stored = reinterpret_cast<const unsigned char*>(scales.expanded.data());
      return scales;
  }
}

// A row of bytes in its places as halves (table_panel_kernels.h); `panel` is that of the row's
// vector.
void place_halves(const std::byte* stored, std::int64_t cols, std::int64_t row,
                  unsigned char* panel) {
  for (std::int64_t u = 0; u < cols / 4; ++u, stored += 4, panel += kUnitBytes) {
    for (int j = 0; j < 4; ++j) {
      panel[32 * (j % 2) + 2 * row + j / 2] = std::to_integer<unsigned char>(stored[j]);
    }
  }
}

// Where one panel goes.
struct PanelPlace {
  unsigned char* codes;
  unsigned char* scales;
};

void pack_panel(const QuantTensor& weight, const TablePanelView& view, const PanelScales& scales,
                std::int64_t panel, const PanelPlace& to) {
  const std::int64_t size = panel_scale_bytes(view.scale_type);
  std::fill_n(to.codes, view.panel_bytes, static_cast<unsigned char>(0));
  std::fill_n(to.scales, view.groups * kPanelRows * size, static_cast<unsigned char>(0));
  const std::int64_t row_bytes = weight.planes[0].dim(1) * 4;
  for (std::int64_t r = 0; r < std::min(kPanelRows, view.rows - panel * kPanelRows); ++r) {
    const std::int64_t row = panel * kPanelRows + r;
    const std::byte* const stored = weight.planes[0].bytes().data() + row * row_bytes;
    if (view.bits == 4) {
      place_nibbles(stored, view.cols, to.codes + 4 * r);
    } else if (view.halves) {
      place_halves(stored, view.cols, r % kHalfRows, to.codes + 4 * (r - r % kHalfRows));
    } else {
      place_bytes(stored, view.cols, /*flipped=*/0, to.codes + 4 * r);
    }
    for (std::int64_t g = 0; g < view.groups; ++g) {
      std::memcpy(to.scales + (g * kPanelRows + r) * size,
                  scales.stored + (row / scales.rows_per * scales.groups + g) * size,
                  static_cast<std::size_t>(size));
    }
  }
}

}  // namespace

std::shared_ptr<const TablePanelWeight> TablePanelWeight::pack(const QuantTensor& weight,
                                                               int most_bits, ThreadPool& pool,
                                                               const PackedSlot& slot) {
  if (weight.format->descriptor().element.bits > most_bits) return nullptr;
  std::optional<PanelTable> table = panel_table(weight);
  if (!table) return nullptr;
  const std::int64_t group = group_length(weight.format->descriptor().scheme, weight.cols);
  if (group % 8 != 0 || weight.cols % group != 0) return nullptr;
  const std::optional<PanelScales> scales = panel_scales_of(weight);
  if (!scales) return nullptr;

  std::shared_ptr<TablePanelWeight> result(new TablePanelWeight);
  result->values_ = std::move(table->values);
  result->steps_ = std::move(table->steps);
  TablePanelView& view = result->view_;
  view = {.rows = weight.rows,
          .cols = weight.cols,
          .bits = weight.format->descriptor().element.bits,
          .halves = table->halves,
          .down = table->down,
          .unit = table->unit,
          .mantissa = table->mantissa,
          .values = result->values_.data(),
          .steps = result->steps_.data(),
          .scale_type = scales->type,
          .factor = scales->factor,
          .group = group,
          .groups = weight.cols / group};
  view.panel_bytes = kPanelRows * weight.cols * view.bits / 8;
  const std::int64_t panels = ceil_div(weight.rows, kPanelRows);
  const std::int64_t scale_bytes = view.groups * kPanelRows * panel_scale_bytes(view.scale_type);
  const PackedPlane planes[] = {{"codes", DType::kU8, {panels, view.panel_bytes}, &result->codes_},
                                {"scales", DType::kU8, {panels, scale_bytes}, &result->scales_}};
  const std::string layout =
      fmt::format("table_panels{}.{}:{}", kPanelRows, view.halves ? 2 : 1, weight.format->name());
  if (!load_planes(slot, layout, planes)) {
    result->codes_ = Tensor::allocate_huge(planes[0].dtype, planes[0].shape);
    result->scales_ = Tensor::allocate(planes[1].dtype, planes[1].shape);
    auto* const codes = result->codes_.mutable_data<unsigned char>();
    auto* const at = result->scales_.mutable_data<unsigned char>();
    pool.parallel_for(panels, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t panel = begin; panel < end; ++panel) {
        pack_panel(weight, view, *scales, panel,
                   {codes + panel * view.panel_bytes, at + panel * scale_bytes});
      }
    });
    save_planes(slot, layout, planes);
  }
  view.codes = bytes_of(result->codes_);
  view.scales = bytes_of(result->scales_);
  return result;
}

const TablePanelWeight* table_panels_of(const LinearArgs& args) {
  return dynamic_cast<const TablePanelWeight*>(args.w->packed.get());
}

}  // namespace nibble::cpu
