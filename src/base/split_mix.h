// Random words with random access: SplitMix64 (Steele, Lea and Flood 2014).
#pragma once

#include <cstdint>

namespace nibble {

// Its finalizer: a bijection that mixes well.
inline std::uint64_t mix_bits(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Word `index` of the stream of a seed.
inline std::uint64_t random_word(std::uint64_t seed, std::uint64_t index) {
  return mix_bits(seed + (index + 1) * 0x9e3779b97f4a7c15u);
}

}  // namespace nibble
