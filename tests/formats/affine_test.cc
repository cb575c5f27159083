#include "formats/affine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "formats/registry.h"
#include "support/test_data.h"

namespace nibble {
namespace {

WeightDescriptor descriptor_of(const std::string& name) {
  return parse_weight_format(name)->descriptor();
}

// Words of the dense little-endian bit stream of the codes (5 i + 3) mod 2^b, i < 32, in a layout
// shared with compressed-tensors; computed independently of this implementation.
TEST(PackCodes, AgreesWithConformanceVectors) {
  const std::vector<std::pair<int, std::vector<std::uint32_t>>> vectors = {
      {2, {0x93939393, 0x93939393}},
      {3, {0x43c67543, 0x7543c675, 0xc67543c6}},
      {4, {0x61c72d83, 0xe94fa50b, 0x61c72d83, 0xe94fa50b}},
      {5, {0x79793503, 0xfd560b30, 0x77137249, 0x1bb45871, 0xf668f514}},
      {6, {0x1748d203, 0x5c2b9a17, 0x38913feb, 0x2789d613, 0x503bdb1b, 0x79950f28}},
      {7, {0x72434403, 0x2b4c84e1, 0x23f74d58, 0x6c539d26, 0xc7667c57, 0x41407bed, 0x3c64a0f1}},
      {8,
       {0x120d0803, 0x26211c17, 0x3a35302b, 0x4e49443f, 0x625d5853, 0x76716c67, 0x8a85807b,
        0x9e99948f}},
  };
  for (const auto& [bits, expected] : vectors) {
    std::vector<std::uint8_t> codes;
    for (int i = 0; i < 32; ++i) {
      codes.push_back(static_cast<std::uint8_t>((5 * i + 3) % (1 << bits)));
    }
    std::vector<std::uint32_t> words(expected.size());
    pack_codes(codes, bits, words.data());
    EXPECT_EQ(words, expected) << bits;

    // Offsets and counts that start and end inside words, from exactly the bytes there are.
    std::vector<std::byte> bytes(words.size() * 4);
    std::memcpy(bytes.data(), words.data(), bytes.size());
    for (int begin = 0; begin < 32; begin += 5) {
      std::vector<std::uint8_t> part(static_cast<std::size_t>(32 - begin));
      unpack_codes(bytes.data(), bits, begin, 32 - begin, part.data());
      EXPECT_EQ(part, std::vector<std::uint8_t>(codes.begin() + begin, codes.end())) << bits;
    }
  }
}

TEST(PackCodes, PadsTheLastWordWithZeros) {
  const std::vector<std::uint8_t> codes = {7, 7, 7};
  std::uint32_t word = 0xffffffff;
  pack_codes(codes, 3, &word);
  EXPECT_EQ(word, 0x1ffu);
}

TEST(AffineParams, AsymmetricRangeIncludesZero) {
  const WeightDescriptor d = descriptor_of("int4_channel_asym_sf32");
  const AffineParams positive = affine_params(d, 1.0f, 3.0f);
  EXPECT_FLOAT_EQ(positive.scale, 0.2f);
  EXPECT_EQ(positive.zero, 0);
  const AffineParams negative = affine_params(d, -3.0f, -1.0f);
  EXPECT_FLOAT_EQ(negative.scale, 0.2f);
  EXPECT_EQ(negative.zero, 15);
  const AffineParams both = affine_params(d, -1.0f, 2.0f);
  EXPECT_FLOAT_EQ(both.scale, 0.2f);
  EXPECT_EQ(both.zero, 5);
}

TEST(AffineParams, SymmetricCoversTheLargestMagnitude) {
  const WeightDescriptor d = descriptor_of("int4_channel_sym_sf32");
  const AffineParams p = affine_params(d, -1.5f, 0.5f);
  EXPECT_FLOAT_EQ(p.scale, 0.2f);
  EXPECT_EQ(p.zero, 8);
}

TEST(AffineParams, EmptyRangeHasScaleOne) {
  EXPECT_EQ(affine_params(descriptor_of("int4_asym"), 0, 0).scale, 1.0f);
  EXPECT_EQ(affine_params(descriptor_of("int4_sym"), 0, 0).scale, 1.0f);
  EXPECT_EQ(affine_params(descriptor_of("int4_sym"), 0, 0).zero, 8);
}

TEST(AffineParams, ScaleStaysPositiveWhenItUnderflows) {
  const AffineParams p = affine_params(descriptor_of("int4_asym"), 0, 1e-9f);
  EXPECT_EQ(p.scale, 0x1p-24f);  // the least positive F16
  EXPECT_GT(affine_params(descriptor_of("int8_sym_sbf16"), 0, 1e-45f).scale, 0.0f);
}

TEST(AffineParams, ScaleBeyondItsTypeIsRefused) {
  EXPECT_ERROR(affine_params(descriptor_of("int2_asym"), -3e5f, 3e5f), ErrorKind::kUnsupported,
               "scales in F32");
  EXPECT_GT(affine_params(descriptor_of("int2_asym_sbf16"), -3e5f, 3e5f).scale, 1e5f);
  // The span of this range is beyond float32, the scale is not.
  EXPECT_TRUE(std::isfinite(affine_params(descriptor_of("int8_asym_sf32"), -3e38f, 3e38f).scale));
}

TEST(AffineParams, ScaleIsRoundedToItsType) {
  const float scale = affine_params(descriptor_of("int4_asym_sbf16"), 0, 1.0f).scale;
  EXPECT_EQ(scale, to_float(to_bf16(1.0f / 15)));
}

TEST(AffineCode, RoundsTiesToEvenAndClamps) {
  const WeightDescriptor d = descriptor_of("int4_channel_asym_sf32");
  const AffineParams p{1.0f, 4};
  EXPECT_EQ(affine_code(d, p, 0.5f), 4);
  EXPECT_EQ(affine_code(d, p, 1.5f), 6);
  EXPECT_EQ(affine_code(d, p, -0.5f), 4);
  EXPECT_EQ(affine_code(d, p, -1.5f), 2);
  EXPECT_EQ(affine_code(d, p, 100.0f), 15);
  EXPECT_EQ(affine_code(d, p, 3e38f), 15);
  EXPECT_EQ(affine_code(d, p, -100.0f), 0);
}

// The textbook ranges: strict leaves out the lowest code, full takes it (Krishnamoorthi,
// arXiv 1806.08342; the range of two's complement).
TEST(AffineParams, SignedRules) {
  const auto scale = [](const char* name, float lo, float hi) {
    return affine_params(descriptor_of(name), lo, hi).scale;
  };
  EXPECT_EQ(scale("int8_sym_strict_sf32", -2.54f, 1), 2.54f / 127);
  EXPECT_EQ(scale("int8_sym_full_sf32", -2.56f, 1), 2.56f / 128);
  EXPECT_EQ(scale("int4_sym_strict_sf32", -1, 7), 1);
  EXPECT_EQ(scale("int4_sym_full_sf32", -8, 7), 1);
  EXPECT_EQ(scale("int2_sym_strict_sf32", -3, 3), 3);

  const std::vector<float> w = {-8, -7, -1, 0, 1, 7, 8, 3.5f};
  std::vector<float> out(w.size());
  decode_all(parse_weight_format("int4_sym_full_sf32")->encode(w.data(), 1, 8), out.data());
  EXPECT_THAT(out, testing::ElementsAre(-8, -7, -1, 0, 1, 7, 7, 4));
  const QuantTensor strict = parse_weight_format("int4_sym_strict_sf16")->encode(w.data(), 1, 8);
  std::vector<std::uint8_t> codes(8);
  unpack_codes(strict.planes[0].bytes().data(), 4, 0, 8, codes.data());
  EXPECT_THAT(codes, testing::ElementsAre(1, 2, 7, 8, 9, 14, 15, 11));
}

// Where the type of scales is too coarse, strict codes still leave out the lowest one.
TEST(AffineParams, StrictHoldsWithTheLeastScales) {
  for (const char* name : {"int4_sym_strict_sf16", "int8_sym_strict_sbf16"}) {
    const FormatPtr format = parse_weight_format(name);
    for (float absmax = 1e-41f; absmax < 1e-3f; absmax *= 1.37f) {
      const std::vector<float> w = {-absmax, absmax};
      std::vector<std::uint8_t> codes(2);
      const QuantTensor t = format->encode(w.data(), 1, 2);
      unpack_codes(t.planes[0].bytes().data(), format->descriptor().element.bits, 0, 2,
                   codes.data());
      EXPECT_GT(codes[0], 0) << name << " " << absmax;
    }
  }
}

TEST(AffineBlocks, RowsAndColumnsShareScales) {
  // Blocks of 2 x 3 over 3 x 5: the last row and the last two columns are cut.
  const std::vector<float> w = {15, 0, 3, 0.5f, 7.5f,  //
                                1,  2, 0, 1,    0,     //
                                30, 4, 2, 150,  10};
  const FormatPtr format = parse_weight_format("int4_b2x3_asym_sf32");
  const QuantTensor t = format->encode(w.data(), 3, 5);
  EXPECT_EQ(t.planes[1].shape(), (Shape{2, 2}));
  std::vector<float> scales(4);
  to_float(t.planes[1], scales.data());
  EXPECT_THAT(scales, testing::ElementsAre(1, 0.5f, 2, 10));
  std::vector<float> out(15);
  decode_all(t, out.data());
  EXPECT_EQ(out, w);
}

}  // namespace
}  // namespace nibble
