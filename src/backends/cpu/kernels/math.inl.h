// Elementary functions on vectors, relative error below 2^-22. The polynomials were fitted by
// iteratively reweighted least squares (Lawson) on Chebyshev nodes to 40-digit values.
// Included inside an anonymous namespace of an ISA unit.

template <int N>
inline Vec polynomial(Vec x, const float (&c)[N]) {  // c[0] + c[1] x + ...
  Vec sum = vset(c[N - 1]);
#pragma GCC unroll 8
  for (int i = N - 2; i >= 0; --i) sum = vfma(sum, x, vset(c[i]));
  return sum;
}

// exp(x); below -87.3 zero, above 88.72 infinity.
inline Vec vexp(Vec x) {
  constexpr float kExp[] = {5.000000000e-01f, 1.666651219e-01f, 4.166618735e-02f, 8.369598538e-03f,
                            1.395171741e-03f};
  const Vec infinite = vselect_less(vset(88.7228f), x, vset(__builtin_inff()), vzero());
  x = vmin(vset(88.7228f), vmax(vset(-87.33f), x));  // this order of arguments keeps NaN
  const Vec n = vround(vmul(x, vset(1.44269504f)));
  // ln 2 in two parts; the first has so few bits that n times it is exact.
  Vec r = vfma(n, vset(-0.693359375f), x);
  r = vfma(n, vset(2.12194440e-4f), r);
  const Vec p = vadd(vfma(vmul(r, r), polynomial(r, kExp), r), vset(1.0f));
  // 2^n as 2^(n - 1) * 2, because 2^128 is no float; -126 - 1 gives zero.
  const Vec value = vmul(vmul(p, vpow2(vsub(n, vset(1.0f)))), vset(2.0f));
  return vadd(value, infinite);
}

inline Vec vtanh(Vec x) {
  constexpr float kTanh[] = {-3.333328366e-01f, 1.333149076e-01f, -5.374350026e-02f,
                             2.065059170e-02f, -5.717048887e-03f};
  const Vec a = vabs(x);
  const Vec s = vmul(x, x);
  const Vec small = vfma(vmul(a, s), polynomial(s, kTanh), a);
  const Vec e = vexp(vadd(a, a));
  const Vec large = vsub(vset(1.0f), vdiv(vset(2.0f), vadd(e, vset(1.0f))));
  return vcopysign(vselect_less(a, vset(0.625f), small, large), x);
}

inline Vec verf(Vec x) {
  constexpr float kErf[] = {1.128379107e+00f,  -3.761262596e-01f, 1.128358543e-01f,
                            -2.685381472e-02f, 5.188333802e-03f,  -8.010242018e-04f,
                            7.854008436e-05f};
  // -log(1 - erf(t)) for t in [1, 4]; beyond, erf is 1 in float32
  constexpr float kLogErfc[] = {3.124686773e-04f, 1.127202272e+00f,  6.379650235e-01f,
                                1.032562032e-01f, -2.190647647e-02f, 2.964005806e-03f,
                                -1.879716292e-04f};
  const Vec a = vabs(x);
  const Vec small = vmul(a, polynomial(vmul(x, x), kErf));
  const Vec t = vmin(vset(4.0f), a);
  const Vec large = vsub(vset(1.0f), vexp(vsub(vzero(), polynomial(t, kLogErfc))));
  return vcopysign(vselect_less(a, vset(1.0f), small, large), x);
}

// Sine and cosine of angles up to 2^20: reduced by pi/2 in three parts (Cody and Waite), which
// needs a vfma that rounds once.
inline void vsincos(Vec x, Vec* sine, Vec* cosine) {
  constexpr float kSin[] = {-1.666665524e-01f, 8.332173340e-03f, -1.951665618e-04f};
  constexpr float kCos[] = {4.166664556e-02f, -1.388736186e-03f, 2.443772973e-05f};
  const Vec n = vround(vmul(x, vset(0.636619772f)));
  Vec r = vfma(n, vset(-1.570796371e+00f), x);
  r = vfma(n, vset(4.371138829e-08f), r);
  r = vfma(n, vset(1.715124510e-15f), r);
  const Vec s = vmul(r, r);
  const Vec sin_r = vfma(vmul(r, s), polynomial(s, kSin), r);
  const Vec cos_r = vfma(vmul(s, s), polynomial(s, kCos), vfma(s, vset(-0.5f), vset(1.0f)));
  // Quadrant n mod 4 as 0, 1, 2, 3 (exact in float).
  const Vec quarter = vmul(n, vset(0.25f));
  Vec whole = vround(quarter);
  whole = vselect_less(quarter, whole, vsub(whole, vset(1.0f)), whole);  // floor
  const Vec q = vmul(vsub(quarter, whole), vset(4.0f));
  // |(|q - 2| - 1)| is 1 for q = 0, 2 and 0 for q = 1, 3, where sine and cosine change places.
  const Vec even = vabs(vsub(vabs(vsub(q, vset(2.0f))), vset(1.0f)));
  const Vec half = vset(0.5f);
  const Vec sin_base = vselect_less(half, even, sin_r, cos_r);
  const Vec cos_base = vselect_less(half, even, cos_r, sin_r);
  // sin: minus in quadrants 2, 3; cos: minus in 1, 2.
  *sine = vselect_less(vset(1.5f), q, vsub(vzero(), sin_base), sin_base);
  const Vec middle = vabs(vsub(q, vset(1.5f)));
  *cosine = vselect_less(middle, vset(1.0f), vsub(vzero(), cos_base), cos_base);
}
