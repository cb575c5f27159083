// Operations on one row: norm, activations, addition, storage of keys and values.
// Included inside an anonymous namespace of an ISA unit.

void norm(const NormTask& t, const float* x, float* y) {
  const std::int64_t whole = t.cols - t.cols % kLanes;
  const std::int64_t rest = t.cols - whole;
  const auto columns = static_cast<float>(t.cols);
  Vec sum = vzero();
  float mean = 0;
  if (t.layer) {
    for (std::int64_t c = 0; c < whole; c += kLanes) sum = vadd(sum, vload(x + c));
    if (rest > 0) sum = vadd(sum, vload_n(x + whole, rest));
    mean = vsum(sum) / columns;
  }
  const Vec center = vset(mean);
  Vec squares = vzero();
  for (std::int64_t c = 0; c < whole; c += kLanes) {
    const Vec d = vsub(vload(x + c), center);
    squares = vfma(d, d, squares);
  }
  if (rest > 0) {
    float centers[kLanes];
    vstore(centers, center);
    const Vec d = vsub(vload_n(x + whole, rest), vload_n(centers, rest));
    squares = vfma(d, d, squares);
  }
  const Vec inverse = vset(1.0f / __builtin_sqrtf(vsum(squares) / columns + t.eps));
  const Vec offset = vset(t.weight_offset);
  const auto scaled = [&](Vec v, Vec weight, Vec bias) {
    return vfma(vmul(vsub(v, center), inverse), weight, bias);
  };
  for (std::int64_t c = 0; c < whole; c += kLanes) {
    const Vec weight = t.weight == nullptr ? vset(1.0f) : vadd(offset, vload(t.weight + c));
    const Vec bias = t.bias == nullptr ? vzero() : vload(t.bias + c);
    vstore(y + c, scaled(vload(x + c), weight, bias));
  }
  if (rest > 0) {
    const Vec weight =
        t.weight == nullptr ? vset(1.0f) : vadd(offset, vload_n(t.weight + whole, rest));
    const Vec bias = t.bias == nullptr ? vzero() : vload_n(t.bias + whole, rest);
    vstore_n(y + whole, scaled(vload_n(x + whole, rest), weight, bias), rest);
  }
}

template <ActivationKind Kind>
inline Vec activated(Vec x, Vec softcap) {
  const Vec one = vset(1.0f);
  const auto gated = [&](Vec z) { return vdiv(x, vadd(one, vexp(vsub(vzero(), z)))); };
  switch (Kind) {
    case ActivationKind::kIdentity:
      return x;
    case ActivationKind::kRelu:
      return vmax(vzero(), x);
    case ActivationKind::kSilu:
      return gated(x);
    case ActivationKind::kGelu:
      return vmul(vmul(x, vset(0.5f)), vadd(one, verf(vmul(x, vset(0.707106781f)))));
    case ActivationKind::kGeluTanh: {
      // 0.5 (1 + tanh u) = 1 / (1 + exp(-2u)), which does not cancel
      const Vec cubic = vmul(vmul(x, x), x);
      return gated(vmul(vset(1.595769122f), vfma(vset(0.044715f), cubic, x)));
    }
    case ActivationKind::kGeluQuick:
      return gated(vmul(vset(1.702f), x));
    case ActivationKind::kTanh:
      return vmul(softcap, vtanh(vdiv(x, softcap)));
  }
}

template <ActivationKind Kind>
void activate_row(float softcap, const float* x, const float* multiplier, std::int64_t count,
                  float* y) {
  const Vec cap = vset(softcap > 0 ? softcap : 1.0f);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Vec v = activated<Kind>(vload(x + i), cap);
    if (multiplier != nullptr) v = vmul(v, vload(multiplier + i));
    vstore(y + i, v);
  }
  if (i < count) {
    Vec v = activated<Kind>(vload_n(x + i, count - i), cap);
    if (multiplier != nullptr) v = vmul(v, vload_n(multiplier + i, count - i));
    vstore_n(y + i, v, count - i);
  }
}

void activate(ActivationKind kind, float softcap, const float* x, const float* multiplier,
              std::int64_t count, float* y) {
  switch (kind) {
    case ActivationKind::kIdentity:
      return activate_row<ActivationKind::kIdentity>(softcap, x, multiplier, count, y);
    case ActivationKind::kRelu:
      return activate_row<ActivationKind::kRelu>(softcap, x, multiplier, count, y);
    case ActivationKind::kSilu:
      return activate_row<ActivationKind::kSilu>(softcap, x, multiplier, count, y);
    case ActivationKind::kGelu:
      return activate_row<ActivationKind::kGelu>(softcap, x, multiplier, count, y);
    case ActivationKind::kGeluTanh:
      return activate_row<ActivationKind::kGeluTanh>(softcap, x, multiplier, count, y);
    case ActivationKind::kGeluQuick:
      return activate_row<ActivationKind::kGeluQuick>(softcap, x, multiplier, count, y);
    case ActivationKind::kTanh:
      return activate_row<ActivationKind::kTanh>(softcap, x, multiplier, count, y);
  }
}

void add(float scale, const float* x, std::int64_t count, float* y) {
  const Vec factor = vset(scale);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    vstore(y + i, vadd(vload(y + i), vmul(factor, vload(x + i))));
  }
  if (i == count) return;
  const Vec last = vmul(factor, vload_n(x + i, count - i));
  vstore_n(y + i, vadd(vload_n(y + i, count - i), last), count - i);
}
