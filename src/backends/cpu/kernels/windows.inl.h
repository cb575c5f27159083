// Eight codes of `Bits` bits are exactly `Bits` bytes, and each lies in two neighbouring ones: its
// window. Included inside an anonymous namespace of an ISA unit.

// Byte of the window of code `lane`; -1 where there is none, which table look-ups turn into zero.
template <int Bits>
constexpr char window_byte(int lane, int half) {
  const int at = lane * Bits / 8 + half;
  return static_cast<char>(at < Bits ? at : -1);
}

// `Bytes` bytes as a number, by loads that go to registers: a memcpy of three bytes would be put
// together in memory, and reading it back stalls.
template <int Bytes>
inline std::uint64_t load_number(const unsigned char* p) {
  if constexpr (Bytes == 0) {
    return 0;
  } else if constexpr (Bytes >= 4) {
    std::uint32_t low;
    __builtin_memcpy(&low, p, 4);
    return low | load_number<Bytes - 4>(p + 4) << 32;
  } else if constexpr (Bytes >= 2) {
    std::uint16_t low;
    __builtin_memcpy(&low, p, 2);
    return low | load_number<Bytes - 2>(p + 2) << 16;
  } else {
    return *p;
  }
}

// What is left of a group: copied, so that no byte behind the plane is touched.
template <class Codes>
inline Vec load_rest(const Codes& codes, const unsigned char* p, std::int64_t bytes) {
  unsigned char copy[2 * kLanes] = {};
  __builtin_memcpy(copy, p, static_cast<std::size_t>(bytes));
  return codes.load_bytes(copy);
}
