// Numbers for tests: the same for the same arguments.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace nibble::test {

// Of a normal distribution around 0.
inline std::vector<float> random_floats(std::int64_t count, unsigned seed, float spread = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = normal(random);
  return values;
}

}  // namespace nibble::test
