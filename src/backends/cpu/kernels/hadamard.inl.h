// The Hadamard transform of rows (HadamardArgs of ops/args.h): sums and differences of neighbours,
// of pairs of them, and so on; within a vector by shuffles, beyond it by whole vectors. Included
// inside an anonymous namespace of an ISA unit.

// Blocks of `size` numbers that fill no vector.
inline void mix_few(float* x, std::int64_t size) {
  for (std::int64_t half = 1; half < size; half *= 2) {
    for (std::int64_t i = 0; i < size; ++i) {
      if ((i & half) != 0) continue;
      const float low = x[i];
      const float high = x[i + half];
      x[i] = low + high;
      x[i + half] = low - high;
    }
  }
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(size));
  for (std::int64_t i = 0; i < size; ++i) x[i] *= scale;
}

// The steps within a vector, times `scale`.
inline Floats mixed_lanes(Floats v, float scale) {
#pragma GCC unroll 4
  for (int half = 1; half < kLanes; half *= 2) {
    Whole other{};
    Whole sign{};
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) {
      other[lane] = lane ^ half;
      sign[lane] = (lane & half) != 0 ? static_cast<int>(0x80000000u) : 0;
    }
    v = shuffled(v, other) + bits_as<Floats>(bits_as<Whole>(v) ^ sign);
  }
  return v * scale;
}

void hadamard(float* x, std::int64_t cols) {
  const std::int64_t size = cols & -cols;
  for (float* const end = x + cols; x < end; x += size) {
    if (size < kLanes) {
      mix_few(x, size);
      continue;
    }
    for (std::int64_t half = kLanes; half < size; half *= 2) {
      for (std::int64_t i = 0; i < size; i += 2 * half) {
        for (std::int64_t j = i; j < i + half; j += kLanes) {
          const Floats low = load_as<Floats>(x + j);
          const Floats high = load_as<Floats>(x + j + half);
          const Floats sum = low + high;
          const Floats difference = low - high;
          __builtin_memcpy(x + j, &sum, sizeof(sum));
          __builtin_memcpy(x + j + half, &difference, sizeof(difference));
        }
      }
    }
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(size));
    each_lane<Floats, Floats>(x, size, x, [&](Floats v) { return mixed_lanes(v, scale); });
  }
}
