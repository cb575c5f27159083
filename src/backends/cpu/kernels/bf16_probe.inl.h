// Nothing but products of bf16 pairs. Included inside an anonymous namespace of an ISA unit.

constexpr int kPairChains = 20;  // enough to hide the latency of the products

float bf16_probe(std::int64_t rounds) {
  constexpr std::uint16_t kHalf[2] = {0x3f00, 0x3f00};
  Vec acc[kPairChains];
#pragma GCC unroll 20
  for (int i = 0; i < kPairChains; ++i) acc[i] = vset(static_cast<float>(i));
  const Pairs half = pbroadcast(kHalf);
  for (; rounds > 0; --rounds) {
#pragma GCC unroll 20
    for (int i = 0; i < kPairChains; ++i) acc[i] = pdot(acc[i], half, half);
  }
  float sum = 0;
  for (int i = 0; i < kPairChains; ++i) sum += vsum(acc[i]);
  return sum;
}
