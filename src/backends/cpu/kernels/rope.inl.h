// Rotary embedding of all heads of one row: the sines and cosines are made once.
// Included inside an anonymous namespace of an ISA unit.

void rope(const RopeTask& t) {
  float* cosines = t.scratch;
  float* sines = t.scratch + t.half;
  const Vec position = vset(t.position);
  const Vec scale = vset(t.scale);
  for (std::int64_t i = 0; i < t.half; i += kLanes) {
    const std::int64_t n = t.half - i < kLanes ? t.half - i : kLanes;
    Vec sine;
    Vec cosine;
    vsincos(vmul(position, vload_n(t.inv_freq + i, n)), &sine, &cosine);
    vstore_n(cosines + i, vmul(cosine, scale), n);
    vstore_n(sines + i, vmul(sine, scale), n);
  }
  for (std::int64_t h = 0; h < t.heads; ++h) {
    float* x = t.x + h * t.head_stride;
    if (t.interleaved) {
      for (std::int64_t i = 0; i < t.half; ++i) {
        const float a = x[2 * i];
        const float b = x[2 * i + 1];
        x[2 * i] = a * cosines[i] - b * sines[i];
        x[2 * i + 1] = b * cosines[i] + a * sines[i];
      }
      continue;
    }
    for (std::int64_t i = 0; i < t.half; i += kLanes) {
      const std::int64_t n = t.half - i < kLanes ? t.half - i : kLanes;
      const Vec a = vload_n(x + i, n);
      const Vec b = vload_n(x + t.half + i, n);
      const Vec c = vload_n(cosines + i, n);
      const Vec s = vload_n(sines + i, n);
      vstore_n(x + i, vsub(vmul(a, c), vmul(b, s)), n);
      vstore_n(x + t.half + i, vfma(b, c, vmul(a, s)), n);
    }
  }
}
