#include "model/tokenizer/byte_level.h"

#include <array>

#include "model/tokenizer/unicode.h"

namespace nibble {
namespace {

constexpr char32_t kFirstStandIn = 0x100;
constexpr int kStandIns = 68;

struct ByteTable {
  std::array<std::string, 256> spelling;
  std::array<int, kFirstStandIn + kStandIns> byte;  // of a code point; -1: none

  ByteTable() {
    byte.fill(-1);
    char32_t stand_in = kFirstStandIn;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
      const char32_t c = printable ? static_cast<char32_t>(b) : stand_in++;
      append_utf8(spelling[b], c);
      byte[c] = b;
    }
  }
};

const ByteTable& table() {
  static const ByteTable instance;
  return instance;
}

}  // namespace

std::string bytes_to_characters(std::string_view bytes) {
  const ByteTable& t = table();
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (const char b : bytes) out += t.spelling[static_cast<unsigned char>(b)];
  return out;
}

void append_spelled_bytes(std::string_view text, std::string& out) {
  const ByteTable& t = table();
  const std::size_t before = out.size();
  for (std::size_t i = 0; i < text.size();) {
    const char32_t c = next_code_point(text, i);
    if (c >= t.byte.size() || t.byte[c] < 0) {
      out.resize(before);
      out += text;
      return;
    }
    out += static_cast<char>(t.byte[c]);
  }
}

std::optional<char> byte_of(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : piece.substr(3, 2)) {
    const std::size_t digit = std::string_view("0123456789ABCDEFabcdef").find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    value = value * 16 + static_cast<int>(digit < 16 ? digit : digit - 6);
  }
  return static_cast<char>(value);
}

}  // namespace nibble
