// Loops that reach a limit of the machine and nothing else. Included inside an anonymous namespace
// of an ISA unit.

// Enough independent chains to fill the multiply-add units whatever their latency.
constexpr int kChains = 12;

// `rounds` multiply-adds on each chain.
float probe_multiply_add(std::int64_t rounds) {
  Vec acc[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) acc[i] = vset(static_cast<float>(i));
  // Too small to change a sum, which no compiler can know. The sum is multiplied, so that no
  // product can be made beforehand, and added to, because NEON adds in place.
  const Vec a = vset(1e-18f * static_cast<float>(rounds));
  for (; rounds > 0; --rounds) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = vfma(a, acc[i], acc[i]);
  }
  float sum = 0;
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum += vsum(acc[i]);
  return sum;
}

// Reads `count` floats once, in four streams, one cache line ahead of another.
float probe_read(const float* data, std::int64_t count) {
  constexpr int kStreams = 4;
  const std::int64_t part = count / kStreams / kLanes * kLanes;
  Vec sum[kStreams] = {vzero(), vzero(), vzero(), vzero()};
  for (std::int64_t i = 0; i < part; i += kLanes) {
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) {
      const float* p = data + s * part + i;
      __builtin_prefetch(p + 1024);
      sum[s] = vadd(sum[s], vload(p));
    }
  }
  return vsum(vadd(vadd(sum[0], sum[1]), vadd(sum[2], sum[3])));
}
