// Rounding activations to bytes, by block over its range.
// Included inside an anonymous namespace of an ISA unit.

void int8_quantize(const float* x, std::int64_t i, const Int8Rows& rows) {
  unsigned char* q = rows.q + i * rows.stride;
  std::int64_t at = i * rows.blocks;
  for (std::int64_t b = 0; b < rows.blocks; ++b, ++at, x += kInt8Block, q += kInt8Block) {
    Vec low = vload(x);
    Vec high = low;
    Vec poison = vzero();  // NaN as soon as a value is no number
    for (int k = 0; k < kInt8Block; k += kLanes) {
      const Vec v = vload(x + k);
      low = vmin(v, low);
      high = vmax(v, high);
      poison = vfma(v, vzero(), poison);
    }
    const float offset = -vhmax(vsub(vzero(), low));
    const float range = vhmax(high) - offset;
    // A range without a reciprocal in float32 rounds to its lower end.
    const float inverse = range > 1e-30f ? 255.0f / range : 0.0f;
    Vec total = vzero();
    for (int k = 0; k < kInt8Block; k += kLanes) {
      const Vec v = vround(vmul(vsub(vload(x + k), vset(offset)), vset(inverse)));
      const Vec byte = vmin(vset(255.0f), vmax(vzero(), v));
      total = vadd(total, byte);
      store_bytes(q + k, byte);
    }
    const float scale = (inverse > 0 ? range / 255.0f : 0.0f) + vsum(poison);
    rows.scale[at] = scale;
    rows.offset[at] = offset + static_cast<float>(kByteShift) * scale;
    rows.sum[at] = scale * vsum(total) + static_cast<float>(kInt8Block) * offset;
  }
}
