// A name for content: equal bytes give equal names, other bytes in practice another one.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

// FNV-1a of 128 bits (Fowler, Noll, Vo). For telling contents apart, not for security.
class ContentHash {
 public:
  void add(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) {
      value_ = (value_ ^ std::to_integer<unsigned>(byte)) * kPrime;
    }
  }
  void add(std::string_view text) { add(std::as_bytes(std::span(text))); }

  // 32 hexadecimal digits.
  std::string hex() const {
    std::string digits(32, '0');
    Word rest = value_;
    for (std::size_t i = digits.size(); i-- > 0; rest >>= 4) {
      digits[i] = "0123456789abcdef"[static_cast<unsigned>(rest & 15)];
    }
    return digits;
  }

 private:
  __extension__ using Word = unsigned __int128;
  static constexpr Word kPrime = (Word{1} << 88) + 0x13b;
  Word value_ = Word{0x6c62272e07bb0142} << 64 | Word{0x62b821756295c58d};
};

}  // namespace nibble
