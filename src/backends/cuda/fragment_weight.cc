#include "backends/cuda/fragment_weight.h"

#include <algorithm>
#include <cstring>

#include "formats/affine.h"

namespace nibble::cuda {
namespace {

constexpr std::int64_t kTileRows = 16;
constexpr std::int64_t kLanes = 32;

// The two codes in a stored byte (columns 2c and 2c + 1) as nibbles 0 and 4.
std::uint32_t spread(std::byte pair) {
  const auto bits = std::to_integer<std::uint32_t>(pair);
  return (bits & 0xfu) | (bits >> 4) << 16;
}

// A lane's codes of one tile; upper and lower are its first pairs in rows g and g + 8.
template <int kBits>
void pack_tile(const std::byte* upper, const std::byte* lower, std::byte* out) {
  constexpr int kHalf = kBits;  // bytes of 8 columns
  if constexpr (kBits == 4) {
    const std::uint32_t word = spread(upper[0]) | spread(lower[0]) << 4 |
                               spread(upper[kHalf]) << 8 | spread(lower[kHalf]) << 12;
    std::memcpy(out, &word, sizeof word);
  } else {
    static_assert(kBits == 8);
    std::memcpy(out, upper, 2);
    std::memcpy(out + 2, lower, 2);
    std::memcpy(out + 4, upper + kHalf, 2);
    std::memcpy(out + 6, lower + kHalf, 2);
  }
}

// stored: the first byte of the block in its first row; rows lie row_bytes apart.
template <int kBits>
void pack_block(const std::byte* stored, std::int64_t row_bytes, std::byte* out) {
  constexpr std::int64_t kTileBytes = 2 * kBits;  // of a row
  constexpr std::int64_t kTiles = 16 / kBits;     // in 16 bytes of a lane
  for (std::int64_t first = 0; first < kFragmentBlock; first += kTileRows) {
    for (std::int64_t tile = 0; tile < kFragmentBlock / 16; tile += kTiles) {
      for (std::int64_t lane = 0; lane < kLanes; ++lane) {
        const std::byte* upper =
            stored + (first + lane / 4) * row_bytes + tile * kTileBytes + lane % 4 * (kBits / 4);
        const std::byte* lower = upper + 8 * row_bytes;
        for (std::int64_t t = 0; t < kTiles; ++t, out += kBits) {
          pack_tile<kBits>(upper + t * kTileBytes, lower + t * kTileBytes, out);
        }
      }
    }
  }
}

// [64, groups] elements of `size` bytes to [groups, 64].
void transpose_rows(const std::byte* from, std::int64_t groups, std::int64_t size, std::byte* to) {
  for (std::int64_t group = 0; group < groups; ++group) {
    for (std::int64_t row = 0; row < kFragmentBlock; ++row, to += size) {
      std::memcpy(to, from + (row * groups + group) * size, static_cast<std::size_t>(size));
    }
  }
}

void pack_numbers(const Tensor& plane, std::int64_t block, std::int64_t groups, std::byte* out) {
  const auto size = static_cast<std::int64_t>(dtype_size(plane.dtype()));
  const std::int64_t offset = block * kFragmentBlock * groups * size;
  transpose_rows(plane.bytes().data() + offset, groups, size, out + offset);
}

std::string why_not_scheme(const Scheme& scheme) {
  if (scheme.granularity == Granularity::kBlock) return "blocks of rows";
  if (scheme.granularity == Granularity::kTensor) return "one scale for the whole tensor";
  if (scheme.granularity == Granularity::kGroup && scheme.group != 32 && scheme.group != 64 &&
      scheme.group != 128) {
    return fmt::format("groups of {}, not of 32, 64 or 128", scheme.group);
  }
  if (dtype_size(scheme.scale_type) != 2) return "scales are not of 16 bits";
  return "";
}

}  // namespace

std::string why_no_fragments(const QuantTensor& weight) {
  const WeightDescriptor& descriptor = weight.format->descriptor();
  if (descriptor.element.kind != ElementKind::kInt) return "no integers";
  const int bits = descriptor.element.bits;
  if (bits != 4 && bits != 8) return fmt::format("{} bits", bits);
  if (std::string reason = why_not_scheme(descriptor.scheme); !reason.empty()) return reason;
  if (weight.rows % kFragmentBlock != 0)
    return fmt::format("{} rows, no multiple of 64", weight.rows);
  if (weight.cols % kFragmentBlock != 0)
    return fmt::format("{} columns, no multiple of 64", weight.cols);
  if (!descriptor.scheme.symmetric) {
    const auto zeros = weight.planes[2].bytes();
    const auto large = [bits](std::byte zero) {
      return std::to_integer<int>(zero) > max_fragment_zero(bits);
    };
    if (std::any_of(zeros.begin(), zeros.end(), large)) {
      return fmt::format("a zero point above {}", max_fragment_zero(bits));
    }
  }
  return "";
}

FragmentWeight pack_fragments(const QuantTensor& weight, ThreadPool& pool) {
  const std::string reason = why_no_fragments(weight);
  if (!reason.empty()) {
    fail(ErrorKind::kUnsupported, "pack_fragments: {}: {}", weight.format->name(), reason);
  }
  const Scheme& scheme = weight.format->descriptor().scheme;
  FragmentWeight result;
  result.bits = weight.format->descriptor().element.bits;
  result.rows = weight.rows;
  result.cols = weight.cols;
  result.groups = groups_per_row(scheme, weight.cols);
  result.group = weight.cols / result.groups;
  const std::int64_t row_blocks = weight.rows / kFragmentBlock;
  const std::int64_t col_blocks = weight.cols / kFragmentBlock;
  const Shape numbers = {row_blocks, result.groups, kFragmentBlock};
  const std::int64_t block_bytes = fragment_block_bytes(result.bits);
  result.codes = Tensor::allocate(DType::kU8, {row_blocks, col_blocks, block_bytes});
  result.scales = Tensor::allocate(scheme.scale_type, numbers);
  if (!scheme.symmetric) result.zeros = Tensor::allocate(DType::kU8, numbers);

  auto* codes = reinterpret_cast<std::byte*>(result.codes.mutable_data<std::uint8_t>());
  auto* scales = reinterpret_cast<std::byte*>(result.scales.mutable_data<std::uint16_t>());
  const std::byte* stored = weight.planes[0].bytes().data();
  const std::int64_t row_bytes = weight.cols * result.bits / 8;
  const auto pack = result.bits == 4 ? pack_block<4> : pack_block<8>;
  pool.parallel_for(row_blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t c = 0; c < col_blocks; ++c) {
        pack(stored + r * kFragmentBlock * row_bytes + c * row_bytes / col_blocks, row_bytes,
             codes + (r * col_blocks + c) * block_bytes);
      }
      pack_numbers(weight.planes[1], r, result.groups, scales);
      if (!scheme.symmetric) {
        pack_numbers(weight.planes[2], r, result.groups,
                     reinterpret_cast<std::byte*>(result.zeros.mutable_data<std::uint8_t>()));
      }
    }
  });
  return result;
}

}  // namespace nibble::cuda
