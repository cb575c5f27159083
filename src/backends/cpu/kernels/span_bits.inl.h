// The bit stream of codes, and halves (formats/span_kernels.h), in the vectors of
// compiler_vectors.inl.h.

typedef std::uint64_t Eights __attribute__((vector_size(4 * kLanes)));  // of eight codes each
constexpr int kEights = kLanes / 2;
typedef std::uint16_t Pairs16 __attribute__((vector_size(4 * kLanes)));
typedef std::uint8_t PackedPairs __attribute__((vector_size(2 * kLanes)));

// Eight codes a lane, a byte each, to one run of bits: neighbours meet, then pairs, then fours.
inline Eights squeezed(Eights x, int bits) {
  x = (x & 0x00ff00ff00ff00ffu) | (x & 0xff00ff00ff00ff00u) >> (8 - bits);
  x = (x & 0x0000ffff0000ffffu) | (x & 0xffff0000ffff0000u) >> (16 - 2 * bits);
  return (x & 0x00000000ffffffffu) | (x & 0xffffffff00000000u) >> (32 - 4 * bits);
}

// And back; what stands above the run falls away.
inline Eights spread(Eights x, int bits) {
  const std::uint64_t fours = (std::uint64_t{1} << 4 * bits) - 1;
  x = (x & fours) | (x << (32 - 4 * bits) & fours << 32);
  const std::uint64_t pairs = ((std::uint64_t{1} << 2 * bits) - 1) * 0x0000000100000001u;
  x = (x & pairs) | (x << (16 - 2 * bits) & pairs << 16);
  const std::uint64_t ones = ((std::uint64_t{1} << bits) - 1) * 0x0001000100010001u;
  return (x & ones) | (x << (8 - bits) & ones << 8);
}

void span_pack(int bits, const std::uint8_t* codes, std::int64_t blocks, unsigned char* bytes) {
  const std::int64_t count = 64 * blocks;
  if (bits == 8) {
    __builtin_memcpy(bytes, codes, static_cast<std::size_t>(count));
    return;
  }
  if (bits == 4) {
    for (std::int64_t i = 0; i < count; i += 4 * kLanes, bytes += 2 * kLanes) {
      const auto pairs = load_as<Pairs16>(codes + i);
      const auto packed = __builtin_convertvector((pairs | pairs >> 4) & 0xff, PackedPairs);
      __builtin_memcpy(bytes, &packed, sizeof(packed));
    }
    return;
  }
  for (std::int64_t i = 0; i < count; i += 8 * kEights) {
    const Eights runs = squeezed(load_as<Eights>(codes + i), bits);
    // What is too much is written over by the next run.
    for (int k = 0; k < kEights; ++k, bytes += bits) {
      const std::uint64_t run = runs[k];
      __builtin_memcpy(bytes, &run, sizeof(run));
    }
  }
}

void span_unpack(int bits, const unsigned char* bytes, std::int64_t blocks, std::uint8_t* codes) {
  const std::int64_t count = 64 * blocks;
  if (bits == 8) {
    __builtin_memcpy(codes, bytes, static_cast<std::size_t>(count));
    return;
  }
  if (bits == 4) {
    for (std::int64_t i = 0; i < count; i += 4 * kLanes, bytes += 2 * kLanes) {
      const auto pairs = __builtin_convertvector(load_as<PackedPairs>(bytes), Pairs16);
      const Pairs16 spread_out = (pairs | pairs << 4) & 0x0f0f;
      __builtin_memcpy(codes + i, &spread_out, sizeof(spread_out));
    }
    return;
  }
  for (std::int64_t i = 0; i < count; i += 8 * kEights) {
    Eights runs;
    for (int k = 0; k < kEights; ++k, bytes += bits) {
      std::uint64_t run;
      __builtin_memcpy(&run, bytes, sizeof(run));
      runs[k] = run;
    }
    const Eights codes_of_runs = spread(runs, bits);
    __builtin_memcpy(codes + i, &codes_of_runs, sizeof(codes_of_runs));
  }
}

// step(from, to) for every kLanes elements, the last ones in a copy.
template <class From, class To, class Step>
inline void each_vector(const From* from, std::int64_t count, To* to, const Step& step) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) step(from + i, to + i);
  if (i == count) return;
  From in[kLanes] = {};
  To out[kLanes];
  for (std::int64_t k = 0; i + k < count; ++k) in[k] = from[i + k];
  step(in, out);
  for (std::int64_t k = 0; i + k < count; ++k) to[i + k] = out[k];
}

void span_to_f16(const float* x, std::int64_t count, std::uint16_t* halves) {
  each_vector(x, count, halves,
              [](const float* from, std::uint16_t* to) { vstore_f16(to, vload(from)); });
}
void span_to_bf16(const float* x, std::int64_t count, std::uint16_t* halves) {
  each_vector(x, count, halves,
              [](const float* from, std::uint16_t* to) { vstore_bf16(to, vload(from)); });
}
void span_from_f16(const std::uint16_t* halves, std::int64_t count, float* x) {
  each_vector(halves, count, x,
              [](const std::uint16_t* from, float* to) { vstore(to, vload_f16(from)); });
}
void span_from_bf16(const std::uint16_t* halves, std::int64_t count, float* x) {
  each_vector(halves, count, x,
              [](const std::uint16_t* from, float* to) { vstore(to, vload_bf16(from)); });
}

constexpr SpanKernels kSpans = {
    span_ranges,       span_magnitudes,   span_affine_codes,   span_affine_values,
    span_table_codes,  span_table_values, span_squared_errors, span_magnitude_sums,
    span_better_codes, span_pack,         span_unpack,         span_to_f16,
    span_to_bf16,      span_from_f16,     span_from_bf16,      span_trellis_step};
