#include "checkpoint/exl2_groups.h"

#include "base/error.h"
#include "base/half.h"

namespace nibble {
namespace {

constexpr std::int64_t kBitsOfWord = 32;

float rounded_to_half(float x) { return to_float(to_f16(x)); }

}  // namespace

std::vector<Exl2Group> exl2_groups(std::span<const std::int16_t> q_groups, std::int64_t words,
                                   std::int64_t cols, const std::string& what) {
  std::vector<Exl2Group> groups;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i + 1 < q_groups.size(); i += 2) {
    const bool last = i + 3 >= q_groups.size();
    const int bits = q_groups[i];
    const std::int64_t word = static_cast<std::uint16_t>(q_groups[i + 1]);
    const std::int64_t end = last ? words : static_cast<std::uint16_t>(q_groups[i + 3]);
    if (bits < 2 || bits > 8 || bits == 7) {
      fail(ErrorKind::kUnsupported, "{}: a group of {} bits; 2, 3, 4, 5, 6 and 8 are supported",
           what, bits);
    }
    // Groups fill words, but for the last one, which has what is left.
    const std::int64_t held = (end - word) * kBitsOfWord / bits, left = cols - begin;
    const std::int64_t size = last ? left : held;
    if ((i == 0 && word != 0) || size < 1 || size > left ||
        (size * bits + kBitsOfWord - 1) / kBitsOfWord != end - word) {
      fail(ErrorKind::kCorrupt, "{}: group {} of q_groups has words {} to {} for {} of {} columns",
           what, i / 2, word, end, size, cols);
    }
    groups.push_back({bits, word, begin, size});
    begin += size;
  }
  if (begin != cols || q_groups.size() % 2 != 0) {
    fail(ErrorKind::kCorrupt, "{}: q_groups hold {} of {} columns", what, begin, cols);
  }
  return groups;
}

float exl2_step(int code, float scale_max) {
  const auto square = static_cast<float>((code + 1) * (code + 1));
  return rounded_to_half(square * rounded_to_half(scale_max / 256));
}

}  // namespace nibble
