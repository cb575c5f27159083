// Kernels of every level encode and decode the same bits as the scalar definition.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "backends/bench_codecs.h"
#include "backends/cpu/impls.h"
#include "backends/cpu/levels.h"
#include "formats/registry.h"
#include "formats/table_format.h"
#include "support/test_data.h"

namespace nibble {
namespace {

std::vector<const cpu::Level*> usable_levels() {
  const auto backend = make_cpu_backend();
  std::vector<const cpu::Level*> levels;
  for (const cpu::Level* level : cpu::kLevels) {
    if (level->usable(backend->caps())) levels.push_back(level);
  }
  return levels;
}

// Weights that careless rounding gets wrong: ties, both zeros, subnormals, the ends of float32,
// groups of zeros and of one value.
std::vector<std::vector<float>> matrices(std::int64_t count) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 0.02f);
  const auto fill = [&](const auto& value) {
    std::vector<float> w(static_cast<std::size_t>(count));
    for (float& x : w) x = value();
    return w;
  };
  std::vector<std::vector<float>> all = {
      fill([&] { return normal(random); }),
      fill([&] { return static_cast<float>(static_cast<int>(random() % 33) - 16) * 0.25f; }),
      fill([&] { return random() % 64 == 0 ? 0x1p-149f : (random() % 2 == 0 ? -0.0f : 0.0f); }),
      fill([&] { return std::ldexp(normal(random), static_cast<int>(random() % 200) - 120); }),
      fill([&] { return -0.375f; }),
      fill([&] { return random() % 2 == 0 ? 0x1.fffffep127f : -0x1.8p-130f; }),
  };
  for (std::int64_t i = 0; i < count; ++i) {  // whole groups of zeros beside others
    if (i / 64 % 3 == 0) all[0][static_cast<std::size_t>(i)] = 0;
  }
  return all;
}

void expect_same(const QuantTensor& a, const QuantTensor& b, const std::string& what) {
  for (std::size_t p = 0; p < a.planes.size(); ++p) {
    const auto x = a.planes[p].bytes();
    ASSERT_EQ(std::memcmp(x.data(), b.planes[p].bytes().data(), x.size()), 0)
        << what << ", plane " << p;
  }
}

void expect_same_values(const QuantTensor& t, const SpanKernels& spans, const std::string& what) {
  std::vector<float> wanted(static_cast<std::size_t>(t.cols));
  std::vector<float> got(wanted.size());
  for (std::int64_t begin : {std::int64_t{0}, t.cols / 3}) {
    const std::int64_t count = t.cols - begin - begin / 4;
    t.format->decode(t, t.rows - 1, begin, count, wanted.data());
    t.format->decode(t, t.rows - 1, begin, count, got.data(), spans);
    ASSERT_EQ(std::memcmp(wanted.data(), got.data(), static_cast<std::size_t>(count) * 4), 0)
        << what << " from column " << begin;
  }
}

// Encoding may refuse (a scale beyond its type); then all kernels do.
void expect_same_encoding(const Format& format, const std::vector<float>& w, std::int64_t rows,
                          std::int64_t cols, const Codec& codec, const std::string& what) {
  QuantTensor wanted;
  try {
    wanted = format.encode(w.data(), rows, cols);
  } catch (const Error& refusal) {
    EXPECT_ERROR(format.encode(w.data(), rows, cols, codec), refusal.kind(), "");
    return;
  }
  const QuantTensor got = format.encode(w.data(), rows, cols, codec);
  expect_same(wanted, got, what);
  expect_same_values(wanted, *codec.spans, what);
}

std::vector<std::string> format_names() {
  std::vector<std::string> names = {
      "int8_tensor_sym_sf32", "int3_g5_asym",          "int5_channel_sym",
      "int7_g24_asym",        "int2_g1_sym",           "int6_g40_sym_sbf16",
      "fp8_e4m3fnuz_g8",      "fp8_e5m2fnuz_tensor",   "fp8_e4m3ieee_channel",
      "fp8_e4m3all_g32",      "fp8_e3m4b2.5_g16",      "fp6_e3m2b1.25_channel",
      "fp5_e2m2_g10",         "fp3_e1m1_g7",           "fp4_e1m2_g16_se8m0_best",
      "fp2_e1m0_g9",          "fixed8_g32_se8m0_best", "nf4_g24_sf16",
      "nf2_g3_sdq8",          "fp8_e7m0b60_g16",       "fp8_e6m1b31_channel",
      "bnb4_tensor_sbf16"};
  for (const FormatAlias& alias : format_aliases()) names.push_back(alias.name);
  return names;
}

TEST(Codecs, EveryLevelStepsThroughATrellisAlike) {
  constexpr std::size_t kStates = 65536;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> values(kStates), after(kStates);
  for (float& v : values) v = normal(random);
  for (float& v : after) v = static_cast<float>(random() % 64);  // with ties
  after[5] = std::numeric_limits<float>::infinity();
  for (const int bits : {2, 3, 4, 8}) {
    std::vector<float> wanted(kStates), got(kStates);
    std::vector<std::uint8_t> wanted_choice(kStates >> bits), got_choice(kStates >> bits);
    scalar_spans().trellis_step(bits, values.data(), 0.3f, 1.7f, after.data(), wanted.data(),
                                wanted_choice.data());
    for (const cpu::Level* level : usable_levels()) {
      level->kernels().spans.trellis_step(bits, values.data(), 0.3f, 1.7f, after.data(), got.data(),
                                          got_choice.data());
      EXPECT_EQ(wanted, got) << bits;
      EXPECT_EQ(wanted_choice, got_choice) << bits;
    }
  }
}

TEST(Codecs, EveryLevelRoundsToHalvesAlike) {
  std::vector<float> x;
  for (std::uint32_t i = 0; i < 100000; ++i) x.push_back(std::bit_cast<float>(i * 2654435761u));
  std::vector<std::uint16_t> codes(1 << 16);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint16_t>(i);
  const auto same = [](float a, float b) {
    return (std::isnan(a) && std::isnan(b)) ||
           std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
  };
  const SpanKernels& defined = scalar_spans();
  for (const cpu::Level* level : usable_levels()) {
    const SpanKernels& spans = level->kernels().spans;
    for (const bool is_f16 : {true, false}) {
      const auto [to, to_defined] = is_f16 ? std::pair(spans.to_f16, defined.to_f16)
                                           : std::pair(spans.to_bf16, defined.to_bf16);
      const auto [from, from_defined] = is_f16 ? std::pair(spans.from_f16, defined.from_f16)
                                               : std::pair(spans.from_bf16, defined.from_bf16);
      for (const std::size_t count : {x.size(), std::size_t{1}, std::size_t{19}}) {
        std::vector<std::uint16_t> wanted(count), got(count);
        to_defined(x.data(), static_cast<std::int64_t>(count), wanted.data());
        to(x.data(), static_cast<std::int64_t>(count), got.data());
        for (std::size_t i = 0; i < count; ++i) {
          if (std::isnan(x[i])) continue;
          ASSERT_EQ(got[i], wanted[i]) << to_string(level->isa) << x[i];
        }
      }
      std::vector<float> wanted(codes.size()), got(codes.size());
      from_defined(codes.data(), 1 << 16, wanted.data());
      from(codes.data(), 1 << 16, got.data());
      for (std::size_t i = 0; i < got.size(); ++i) ASSERT_TRUE(same(got[i], wanted[i])) << i;
    }
  }
}

// The bit stream, and that nothing but the eight bytes behind it is touched.
TEST(Codecs, EveryLevelPacksAlike) {
  std::mt19937 random(5);
  for (const cpu::Level* level : usable_levels()) {
    const SpanKernels& spans = level->kernels().spans;
    for (int bits = 1; bits <= 8; ++bits) {
      for (const std::size_t blocks : {0u, 1u, 3u}) {
        const std::size_t bytes = blocks * 8 * static_cast<std::size_t>(bits);
        std::vector<std::uint8_t> codes(64 * blocks), back(codes.size() + 1, 77);
        for (auto& code : codes) code = static_cast<std::uint8_t>(random() % (1u << bits));
        std::vector<unsigned char> wanted(bytes + 8), got(bytes + 9, 77);
        scalar_spans().pack(bits, codes.data(), static_cast<std::int64_t>(blocks), wanted.data());
        spans.pack(bits, codes.data(), static_cast<std::int64_t>(blocks), got.data());
        ASSERT_EQ(std::memcmp(wanted.data(), got.data(), bytes), 0) << bits;
        ASSERT_EQ(got.back(), 77);
        spans.unpack(bits, got.data(), static_cast<std::int64_t>(blocks), back.data());
        ASSERT_EQ(back.back(), 77);
        back.pop_back();
        ASSERT_EQ(back, codes) << to_string(level->isa) << " " << bits;
      }
    }
  }
}

// Where float32 cannot tell which of two scales is better, the definition decides: equal scales,
// errors that are equal or nearly so, nothing but zeros, scales that are no numbers to divide by.
TEST(Codecs, EveryLevelChoosesScalesAlike) {
  constexpr std::int64_t kGroups = 200;
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, 1);
  for (const char* name :
       {"fp4_e2m1_g16", "fp8_e4m3_g32", "nf4_g16", "fp6_e3m2_g40", "fixed8_g32"}) {
    const FormatPtr format = parse_weight_format(name);
    const TableView table = table_of(*format).view();
    const std::int64_t length = format->descriptor().scheme.group;
    std::vector<float> w(static_cast<std::size_t>(kGroups * length)), first(kGroups),
        second(kGroups);
    for (float& v : w) v = normal(random);
    for (std::size_t g = 0; g < kGroups; ++g) {
      const auto kind = g % 10;
      first[g] = 0.4f;
      second[g] = kind < 3 ? 0.6f : kind < 5 ? std::nextafter(0.4f, 1.0f) : 0.4f;
      if (kind == 6) first[g] = 0;
      if (kind == 7) first[g] = 1e-30f;
      float* const group = w.data() + g * static_cast<std::size_t>(length);
      if (kind == 8) std::fill_n(group, length, 0.0f);
      if (kind == 9) second[g] = 1;
      for (std::int64_t i = 0; kind == 9 && i < length; ++i) {
        group[i] = group[i] < 0 ? -0.4f : 0.4f;  // exact under the first
      }
    }
    std::vector<std::uint8_t> codes(w.size()), choice(kGroups), got_codes(w.size()), got(kGroups);
    scalar_spans().better_codes(table, first.data(), second.data(), w.data(), kGroups, length,
                                codes.data(), choice.data());
    EXPECT_GT(std::ranges::count(choice, 1), 10);
    for (const cpu::Level* level : usable_levels()) {
      level->kernels().spans.better_codes(table, first.data(), second.data(), w.data(), kGroups,
                                          length, got_codes.data(), got.data());
      EXPECT_EQ(got, choice) << to_string(level->isa) << " " << name;
      EXPECT_EQ(got_codes, codes) << to_string(level->isa) << " " << name;
    }
  }
}

TEST(Codecs, EveryLevelWritesTheBitsOfTheDefinition) {
  for (const cpu::Level* level : usable_levels()) {
    const SpanKernels& spans = level->kernels().spans;
    for (const std::string& name : format_names()) {
      const FormatPtr format = parse_model_format(name).weights;
      const Scheme& scheme = format->descriptor().scheme;
      const bool grouped = !format->is_float() && scheme.granularity == Granularity::kGroup;
      const std::int64_t cols = grouped ? scheme.group * 7 : 333;
      int number = 0;
      for (const std::vector<float>& w : matrices(3 * cols)) {
        expect_same_encoding(
            *format, w, 3, cols, {&spans},
            fmt::format("{} {} of matrix {}", to_string(level->isa), name, number++));
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Codes that no encoder writes (NaN, infinity, both zeros) have the values of the definition too.
TEST(Codecs, EveryCodeDecodesTheSame) {
  for (const cpu::Level* level : usable_levels()) {
    for (const std::string name : {"fp8", "fp8_e5m2", "mxfp6_e3m2", "nvfp4_plain", "nf4", "mxint8",
                                   "w8a16", "w3a16_g128", "nf4_dq"}) {
      const FormatPtr format = parse_model_format(name).weights;
      std::mt19937 random(3);
      const std::vector<float> w(2 * 256, 0.5f);
      QuantTensor t = format->encode(w.data(), 2, 256);
      for (std::size_t p : {0u, 1u}) {  // any bytes in the codes and the scales
        Tensor any = Tensor::allocate(t.planes[p].dtype(), t.planes[p].shape());
        auto* bytes = static_cast<std::uint8_t*>(any.address());
        for (std::size_t i = 0; i < any.byte_size(); ++i) {
          bytes[i] = static_cast<std::uint8_t>(
              p == 0 && format->descriptor().element.bits == 8 ? i : random());
        }
        t.planes[p] = any;
        std::vector<std::uint32_t> wanted(512), got(512);
        decode_all(t, reinterpret_cast<float*>(wanted.data()));
        decode_all(t, reinterpret_cast<float*>(got.data()), {&level->kernels().spans});
        for (std::size_t i = 0; i < wanted.size(); ++i) {
          const auto is_nan = [](std::uint32_t x) { return (x & 0x7fffffffu) > 0x7f800000u; };
          ASSERT_TRUE(wanted[i] == got[i] || (is_nan(wanted[i]) && is_nan(got[i])))
              << to_string(level->isa) << " " << name << " element " << i;
        }
      }
    }
  }
}

TEST(Codecs, DamageIsFoundWhereverItStands) {
  for (const cpu::Level* level : usable_levels()) {
    const Codec codec{&level->kernels().spans};
    for (const std::string name : {"w4a16", "w8a16_g128", "fp8", "nvfp4", "bf16", "int4_tensor"}) {
      const FormatPtr format = parse_model_format(name).weights;
      for (const float bad :
           {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
            -std::numeric_limits<float>::infinity()}) {
        for (const std::size_t at : {0u, 255u, 256u, 511u}) {
          std::vector<float> w(2 * 256, 0.5f);
          w[at] = bad;
          EXPECT_ERROR(format->encode(w.data(), 2, 256, codec), ErrorKind::kCorrupt,
                       fmt::format("row {} column {}", at / 256, at % 256));
        }
      }
    }
  }
}

TEST(Codecs, AnyNumberOfThreadsWritesTheSame) {
  ThreadPool pool(3);
  const std::int64_t rows = 97, cols = 1024;
  const std::vector<float> w = matrices(rows * cols)[0];
  for (const std::string& name : format_names()) {
    const FormatPtr format = parse_model_format(name).weights;
    if (!format->why_not(rows, cols).empty()) continue;
    expect_same(format->encode(w.data(), rows, cols),
                format->encode(w.data(), rows, cols, {&scalar_spans(), &pool}), name);
  }
}

TEST(Codecs, TheBenchmarkComparesBits) {
  const auto backend = make_cpu_backend();
  CodecBench options;
  options.rows = 4;
  options.cols = 256;
  options.seconds = 0;
  const std::vector<CodecRow> rows = bench_codecs(*backend, options);
  ASSERT_EQ(rows.size(), format_aliases().size());
  for (const CodecRow& row : rows) {
    EXPECT_TRUE(row.equal) << row.name;
    EXPECT_GT(row.encode_bytes_per_second, 0) << row.name;
    EXPECT_GT(row.decode_bytes_per_second, 0) << row.name;
  }
}

}  // namespace
}  // namespace nibble
