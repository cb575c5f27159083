#include "checkpoint/exl2_layout.h"

#include <cstring>

#include "base/error.h"
#include "formats/mixed_format.h"

namespace nibble {
namespace {

constexpr int kBitsOfWord = 32, kScaleBits = 4, kScalesPerWord = 8;

std::int64_t words_of(std::int64_t codes, int bits) {
  return (codes * bits + kBitsOfWord - 1) / kBitsOfWord;
}

}  // namespace

WeightDescriptor exl2_descriptor(const std::vector<Exl2Group>& groups, std::int64_t words,
                                 std::int64_t cols, const std::string& what) {
  WeightDescriptor descriptor;
  descriptor.element.kind = ElementKind::kMixed;
  descriptor.element.bits = 8;
  std::vector<ColumnRun>& runs = descriptor.element.runs;
  std::int64_t left = cols;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const auto& [bits, word] = groups[i];
    const bool last = i + 1 == groups.size();
    const std::int64_t end = last ? words : groups[i + 1].word;
    if (bits < 1 || bits > 8 || end <= word || (i == 0 && word != 0)) {
      fail(ErrorKind::kCorrupt, "{}: group {} of q_groups has {} bits and words {} to {}", what, i,
           bits, word, end);
    }
    const std::int64_t size = last ? left : (end - word) * kBitsOfWord / bits;
    if (size < 1 || size > left || words_of(size, bits) != end - word) {
      fail(ErrorKind::kCorrupt, "{}: group {} of q_groups has {} words for {} of {} columns", what,
           i, end - word, size, cols);
    }
    left -= size;
    const bool shorter = last && !runs.empty() && size < runs.back().group;
    if (!runs.empty() && runs.back().bits == bits && (runs.back().group == size || shorter)) {
      ++runs.back().groups;
    } else {  // whose words the last group need not fill
      const bool fills = size * bits % kBitsOfWord == 0;
      runs.push_back({bits, fills ? size : (size / kBitsOfWord + 1) * kBitsOfWord, 1});
    }
  }
  if (left != 0 || groups.empty()) {
    fail(ErrorKind::kCorrupt, "{}: the groups of q_groups do not hold {} columns", what, cols);
  }
  runs.back().groups = 0;
  return descriptor;
}

std::vector<Exl2Group> exl2_groups(const Format& format, std::int64_t cols) {
  std::vector<Exl2Group> groups;
  for (const MixedRun& run : mixed_runs(format, cols)) {
    for (std::int64_t g = 0; g < run.groups; ++g) {
      groups.push_back({run.bits, run.word + g * run.group * run.bits / kBitsOfWord});
    }
  }
  return groups;
}

Tensor exl2_scales(const Tensor& stored, std::int64_t rows, std::int64_t groups,
                   const std::string& what) {
  if (rows % kScalesPerWord != 0 || stored.shape() != Shape{groups, rows / kScalesPerWord}) {
    fail(ErrorKind::kCorrupt, "{}: scales {} of {} rows in {} groups", what,
         to_string(stored.shape()), rows, groups);
  }
  Tensor scales = Tensor::allocate(DType::kU8, {rows, (groups + 1) / 2});
  std::memset(scales.address(), 0, scales.byte_size());
  auto* pairs = scales.mutable_data<std::uint8_t>();
  const std::byte* bytes = stored.bytes().data();
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const unsigned two = std::to_integer<unsigned>(bytes[(g * rows + row) / 2]);
      const unsigned code = row % 2 == 0 ? two & 15 : two >> kScaleBits;
      std::uint8_t& pair = pairs[row * scales.dim(1) + g / 2];
      pair = static_cast<std::uint8_t>(pair | (g % 2 == 0 ? code : code << kScaleBits));
    }
  }
  return scales;
}

Tensor exl2_stored_scales(const Tensor& scales, std::int64_t groups) {
  const std::int64_t rows = scales.dim(0);
  Tensor stored = Tensor::allocate(DType::kI32, {groups, rows / kScalesPerWord});
  std::memset(stored.address(), 0, stored.byte_size());
  auto* bytes = static_cast<std::byte*>(stored.address());
  const std::byte* pairs = scales.bytes().data();
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::byte pair = pairs[row * scales.dim(1) + g / 2];
      const std::byte code = g % 2 == 0 ? pair & std::byte{15} : pair >> kScaleBits;
      bytes[(g * rows + row) / 2] |= row % 2 == 0 ? code : code << kScaleBits;
    }
  }
  return stored;
}

}  // namespace nibble
