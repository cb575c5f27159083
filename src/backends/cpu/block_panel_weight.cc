#include "backends/cpu/block_panel_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "backends/cpu/rounding.h"
#include "formats/block_bytes.h"
#include "formats/block_decode.h"

namespace nibble::cpu {
namespace {

// What a super-block says of its elements.
struct SuperBlockParts {
  std::array<std::uint8_t, kSuperBlock> codes;
  std::array<std::uint8_t, kSuperBlock / 16> scales = {};  // by run, bits of signed bytes
  std::array<std::uint8_t, kSuperBlock / 16> minimums = {};
  const std::uint8_t* d = nullptr;  // f16
  const std::uint8_t* dmin = nullptr;
};

// Element i of Q2_K and Q3_K: of each 128, 32 bytes hold 4 runs of 32.
int pair_at(const std::uint8_t* codes, int i) {
  return codes[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3;
}

void take_q2(const std::uint8_t* block, SuperBlockParts& parts) {
  parts.d = block + 80;
  parts.dmin = block + 82;
  for (std::size_t j = 0; j < 16; ++j) {
    parts.scales[j] = block[j] & 15;
    parts.minimums[j] = block[j] >> 4;
  }
  for (int i = 0; i < 256; ++i) {
    parts.codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(pair_at(block + 16, i));
  }
}

void take_q3(const std::uint8_t* block, SuperBlockParts& parts) {
  parts.d = block + 108;
  for (int j = 0; j < 16; ++j) {
    parts.scales[static_cast<std::size_t>(j)] =
        static_cast<std::uint8_t>(scale_of_k3(block + 96, j));
  }
  for (int i = 0; i < 256; ++i) {
    const int third = (block[i % 32] >> (i / 32) & 1) << 2;
    parts.codes[static_cast<std::size_t>(i)] =
        static_cast<std::uint8_t>(pair_at(block + 32, i) | third);
  }
}

// Codes of Q4_K and Q5_K: of each 64 elements, 32 bytes hold two runs of 32.
void take_k45(const std::uint8_t* block, bool fifth_bits, SuperBlockParts& parts) {
  const std::uint8_t* const high = block + 16;
  const std::uint8_t* const codes = block + (fifth_bits ? 48 : 16);
  parts.d = block;
  parts.dmin = block + 2;
  for (int j = 0; j < 8; ++j) {
    const auto run = static_cast<std::size_t>(j);
    parts.scales[run] = static_cast<std::uint8_t>(scale_of_k4(block + 4, j));
    parts.minimums[run] = static_cast<std::uint8_t>(minimum_of_k4(block + 4, j));
    for (int i = 0; i < 32; ++i) {
      const int fifth = fifth_bits ? (high[i] >> j & 1) << 4 : 0;
      parts.codes[static_cast<std::size_t>(32 * j + i)] =
          static_cast<std::uint8_t>((codes[j / 2 * 32 + i] >> 4 * (j % 2) & 15) | fifth);
    }
  }
}

void take_q6(const std::uint8_t* block, SuperBlockParts& parts) {
  parts.d = block + 208;
  std::copy_n(block + 192, 16, parts.scales.begin());
  for (int i = 0; i < 256; ++i) {
    const int part = i / 128, run = i / 32 % 4, at = i % 32;
    const int low = block[64 * part + at + 32 * (run % 2)] >> 4 * (run / 2) & 15;
    const int high = block[128 + 32 * part + at] >> 2 * run & 3;
    parts.codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(low | high << 4);
  }
}

void take_iq4_xs(const std::uint8_t* block, SuperBlockParts& parts) {
  parts.d = block;
  for (int j = 0; j < 8; ++j) {
    parts.scales[static_cast<std::size_t>(j)] =
        static_cast<std::uint8_t>(scale_of_iq4_xs(load_u16(block + 2), block + 4, j));
    for (int i = 0; i < 32; ++i) {
      parts.codes[static_cast<std::size_t>(32 * j + i)] =
          block[8 + 16 * j + i % 16] >> (i < 16 ? 0 : 4) & 15;
    }
  }
}

void take(BlockStorage type, const std::uint8_t* block, SuperBlockParts& parts) {
  switch (type) {
    case BlockStorage::kQ2_K:
      return take_q2(block, parts);
    case BlockStorage::kQ3_K:
      return take_q3(block, parts);
    case BlockStorage::kQ6_K:
      return take_q6(block, parts);
    case BlockStorage::kIq4Xs:
      return take_iq4_xs(block, parts);
    default:
      return take_k45(block, type == BlockStorage::kQ5_K, parts);
  }
}

// Adds the `bits` lowest of a code of half i to where it has bytes of its own from `to` on.
void place_bits(int code, int bits, int i, unsigned char* to) {
  const int halves = 8 / bits;  // in a vector
  const int field = code & ((1 << bits) - 1);
  to[i / halves * kUnitBytes] |= static_cast<unsigned char>(field << bits * (i % halves));
}

// Row r of the panel whose super-block begins at `to`; what is there is zero.
void place(const BlockPanelType& type, const SuperBlockParts& parts, std::int64_t r,
           unsigned char* to) {
  const BlockPanelLayout layout(type);
  std::memcpy(to + 2 * r, parts.d, 2);
  if (type.minimums) std::memcpy(to + 2 * (kPanelRows + r), parts.dmin, 2);
  const int runs = 32 / type.run;
  unsigned char* columns = to + layout.header;
  for (int c = 0; c < kSuperBlock / 32; ++c, columns += layout.columns32) {
    for (int run = 0; run < runs; ++run) {
      const auto at = static_cast<std::size_t>(c * runs + run);
      columns[run * kPanelRows + r] = parts.scales[at];
      if (type.minimums) columns[layout.minimums + run * kPanelRows + r] = parts.minimums[at];
    }
    for (int k = 0; k < 32; ++k) {
      const int code = parts.codes[static_cast<std::size_t>(32 * c + k)];
      unsigned char* const byte = columns + 4 * r + k % 4;
      place_bits(code, type.low, k / 4, byte + layout.low);
      if (type.high > 0) place_bits(code >> type.low, type.high, k / 4, byte + layout.high);
    }
  }
}

void pack_panel(const QuantTensor& weight, const BlockPanelType& type, std::int64_t panel,
                unsigned char* to) {
  const std::int64_t super_block = BlockPanelLayout(type).super_block;
  const std::int64_t blocks = weight.cols / kSuperBlock;
  std::fill_n(to, blocks * super_block, static_cast<unsigned char>(0));
  const std::int64_t row_bytes = weight.planes[0].dim(1);
  SuperBlockParts parts;
  for (std::int64_t r = 0; r < std::min(kPanelRows, weight.rows - panel * kPanelRows); ++r) {
    const auto* row = reinterpret_cast<const std::uint8_t*>(weight.planes[0].bytes().data()) +
                      (panel * kPanelRows + r) * row_bytes;
    for (std::int64_t b = 0; b < blocks; ++b, row += row_bytes / blocks) {
      take(type.type, row, parts);
      place(type, parts, r, to + b * super_block);
    }
  }
}

// Null when there is none that the machine's kernels take.
const BlockPanelType* panel_type_of(const QuantTensor& weight, const DeviceCaps& caps) {
  const Element& element = weight.format->descriptor().element;
  if (element.kind != ElementKind::kBlock) return nullptr;
  for (const BlockPanelType& type : kBlockPanelTypes) {
    if (static_cast<int>(type.type) != static_cast<int>(element.block)) continue;
    const bool whole = caps.avx512_vnni || caps.neon_i8mm;
    return type.type != BlockStorage::kIq4Xs || whole ? &type : nullptr;
  }
  return nullptr;
}

}  // namespace

std::shared_ptr<const BlockPanelWeight> BlockPanelWeight::pack(const QuantTensor& weight,
                                                               const DeviceCaps& caps,
                                                               ThreadPool& pool,
                                                               const PackedSlot& slot) {
  const BlockPanelType* const type = panel_type_of(weight, caps);
  if (type == nullptr) return nullptr;
  std::shared_ptr<BlockPanelWeight> result(new BlockPanelWeight);
  BlockPanelView& view = result->view_;
  view.type = type->type;
  view.rows = weight.rows;
  view.cols = weight.cols;
  view.panel_bytes = weight.cols / kSuperBlock * BlockPanelLayout(*type).super_block;
  const std::int64_t panels = ceil_div(weight.rows, kPanelRows);
  const PackedPlane planes[] = {
      {"panels", DType::kU8, {panels, view.panel_bytes}, &result->bytes_}};
  const std::string layout = fmt::format("block_panels{}.1:{}", kPanelRows, weight.format->name());
  if (!load_planes(slot, layout, planes)) {
    result->bytes_ = Tensor::allocate_huge(DType::kU8, planes[0].shape);
    auto* const bytes = result->bytes_.mutable_data<unsigned char>();
    pool.parallel_for(panels, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t panel = begin; panel < end; ++panel) {
        pack_panel(weight, *type, panel, bytes + panel * view.panel_bytes);
      }
    });
    save_planes(slot, layout, planes);
  }
  view.data = reinterpret_cast<const unsigned char*>(result->bytes_.bytes().data());
  return result;
}

const BlockPanelWeight* block_panels_of(const LinearArgs& args) {
  return dynamic_cast<const BlockPanelWeight*>(args.w->packed.get());
}

}  // namespace nibble::cpu
