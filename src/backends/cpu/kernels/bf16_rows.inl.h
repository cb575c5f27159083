// Activations to bf16. Included inside an anonymous namespace of an ISA unit.

void bf16_narrow(const float* x, std::int64_t count, std::uint16_t* out) {
  std::int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) vstore_bf16(out + k, vload(x + k));
  for (; k % kBf16Step != 0 || k < count; k += kLanes) {
    vstore_bf16(out + k, k < count ? vload_n(x + k, count - k) : vzero());
  }
}
