#include "base/base64.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string decode_base64(std::string_view text, std::string_view what) {
  const auto corrupt = [&] { fail(ErrorKind::kCorrupt, "{}: not valid base64", what); };
  if (text.size() % 4 != 0) corrupt();
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  while (!text.empty() && text.back() == '=') {
    text.remove_suffix(1);
    if (++count > 2) corrupt();
  }
  count = 0;
  for (const char c : text) {
    const std::size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) corrupt();
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>(bits >> count & 0xff);
    }
  }
  return out;
}

std::string encode_base64(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t word = 0;
    for (std::size_t k = 0; k < 3; ++k)
      word = word << 8 | (i + k < bytes.size() ? bytes[i + k] : 0);
    for (std::size_t k = 0; k < 4; ++k) {
      text += k <= std::min<std::size_t>(bytes.size() - i, 3) ? kDigits[word >> (18 - 6 * k) & 63]
                                                              : '=';
    }
  }
  return text;
}

}  // namespace nibble
