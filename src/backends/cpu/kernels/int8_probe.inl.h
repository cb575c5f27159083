// Nothing but byte products. Included inside an anonymous namespace of an ISA unit.

constexpr int kIntChains = 12;  // enough to hide the latency of the products

float int8_probe(std::int64_t rounds) {
  Ints acc[kIntChains];
#pragma GCC unroll 12
  for (int i = 0; i < kIntChains; ++i) acc[i] = iset8(i);
  const Ints x = iset8(3);
  const Ints w = iset8(2);
  for (; rounds > 0; --rounds) {
#pragma GCC unroll 12
    for (int i = 0; i < kIntChains; ++i) acc[i] = idot(acc[i], x, w);
  }
  float sum = 0;
  for (int i = 0; i < kIntChains; ++i) sum += vsum(ifloat(acc[i]));
  return sum;
}
