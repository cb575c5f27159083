// Nothing but tile products of bf16. Included inside an anonymous namespace of an ISA unit.

constexpr double kAmxProbeOperations = 4.0 * 2 * 16 * 16 * 32;

float amx_probe(std::int64_t rounds) {
  const WholeTiles tiles;
  alignas(64) std::uint16_t ones[kAmxRows * kBf16Step];
  for (auto& one : ones) one = 0x3f80;
  _tile_loadd(4, ones, kAmxRowBytes);
  _tile_loadd(5, ones, kAmxRowBytes);
  _tile_loadd(6, ones, kAmxRowBytes);
  _tile_loadd(7, ones, kAmxRowBytes);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (; rounds > 0; --rounds) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  alignas(64) float sums[kAmxRows * kPairLanes];
  _tile_stored(0, sums, kAmxRowBytes);
  _tile_stored(1, sums, kAmxRowBytes);
  _tile_stored(2, sums, kAmxRowBytes);
  _tile_stored(3, sums, kAmxRowBytes);
  return sums[0];
}
