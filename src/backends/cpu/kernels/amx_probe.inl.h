// Nothing but tile products, of the kind that AMX_PRODUCT names. Included inside an anonymous
// namespace of an ISA unit.

// Multiplications of a product: 16 x 16 sums over a row of `size` byte numbers.
constexpr double amx_probe_operations(int size) {
  return 4.0 * 2 * kAmxRows * kAmxRows * kAmxRowBytes / size;
}

float amx_probe(std::int64_t rounds) {
  const WholeTiles tiles;
  alignas(64) unsigned char ones[kAmxRows * kAmxRowBytes];
  __builtin_memset(ones, 0x3f, sizeof(ones));  // as bf16 0.75
  _tile_loadd(4, ones, kAmxRowBytes);
  _tile_loadd(5, ones, kAmxRowBytes);
  _tile_loadd(6, ones, kAmxRowBytes);
  _tile_loadd(7, ones, kAmxRowBytes);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (; rounds > 0; --rounds) {
    AMX_PRODUCT(0, 4, 6);
    AMX_PRODUCT(1, 4, 7);
    AMX_PRODUCT(2, 5, 6);
    AMX_PRODUCT(3, 5, 7);
  }
  alignas(64) float sums[kAmxRows * kAmxRowBytes / 4];
  _tile_stored(0, sums, kAmxRowBytes);
  _tile_stored(1, sums, kAmxRowBytes);
  _tile_stored(2, sums, kAmxRowBytes);
  _tile_stored(3, sums, kAmxRowBytes);
  return sums[0];
}
