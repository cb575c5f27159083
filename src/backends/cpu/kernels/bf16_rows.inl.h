// Activations to bf16. Included inside an anonymous namespace of an ISA unit.

void bf16_narrow(const float* x, std::int64_t count, std::uint16_t* out) {
  const auto load = [&](std::int64_t k) {
    const std::int64_t left = count - k;
    if (left >= kLanes) return vload(x + k);
    return left > 0 ? vload_n(x + k, left) : vzero();
  };
  for (std::int64_t k = 0; k < count; k += kBf16Step) {
    pstore(out + k, pjoin(load(k), load(k + kLanes)));
  }
}
