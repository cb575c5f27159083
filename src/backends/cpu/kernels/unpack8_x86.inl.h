// Eight codes of `Bits` bits (exactly `Bits` bytes) to eight 16-bit lanes. A shuffle gives each
// lane the two bytes that hold its code, a multiplication shifts lane by lane, and a common shift
// aligns. Included inside an anonymous namespace of an ISA unit.

template <int Bits>
constexpr char window_byte(int lane, int half) {
  const int at = lane * Bits / 8 + half;
  return static_cast<char>(at < Bits ? at : -1);
}

template <int Bits>
constexpr short window_factor(int lane) {
  return static_cast<short>(1 << (7 - lane * Bits % 8));
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

template <int Bits>
inline __m128i unpack8(const unsigned char* p) {
  constexpr auto at = window_byte<Bits>;
  constexpr auto factor = window_factor<Bits>;
  const __m128i windows =
      _mm_shuffle_epi8(_mm_cvtsi64_si128(static_cast<long long>(load_number<Bits>(p))),
                       _mm_setr_epi8(at(0, 0), at(0, 1), at(1, 0), at(1, 1), at(2, 0), at(2, 1),
                                     at(3, 0), at(3, 1), at(4, 0), at(4, 1), at(5, 0), at(5, 1),
                                     at(6, 0), at(6, 1), at(7, 0), at(7, 1)));
  const __m128i shifted =
      _mm_mullo_epi16(windows, _mm_setr_epi16(factor(0), factor(1), factor(2), factor(3), factor(4),
                                              factor(5), factor(6), factor(7)));
  return _mm_and_si128(_mm_srli_epi16(shifted, 7), _mm_set1_epi16((1 << Bits) - 1));
}

// What is left of a group: copied, so that no byte behind the plane is touched.
template <class Codes>
inline Vec load_rest(const Codes& codes, const unsigned char* p, std::int64_t bytes) {
  unsigned char copy[2 * kLanes] = {};
  __builtin_memcpy(copy, p, static_cast<std::size_t>(bytes));
  return codes.load_bytes(copy);
}
