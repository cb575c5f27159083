// Bytes of rounded activations. Included inside an anonymous namespace of an ISA unit.

// kLanes whole numbers in [0, 255] as bytes, less what the level's products want them lowered by.
inline void store_bytes(unsigned char* p, Vec v) {
  vstore_u8(p, v);
  if constexpr (kByteShift != 0) {
    for (int i = 0; i < kLanes; ++i) p[i] = static_cast<unsigned char>(p[i] - kByteShift);
  }
}
