#include "formats/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/test_data.h"

namespace nibble {
namespace {

// Names stand in checkpoints and recipes: what one meant must not change, and none may vanish.
TEST(Registry, ReleasedNamesKeepTheirMeaning) {
  const std::vector<std::pair<std::string, std::string>> released = {
      {"f32", "w=f32,e=f32,kv=f32"},
      {"f16", "w=f16"},
      {"bf16", "w=bf16"},
      {"w8a16", "w=int8_channel_sym"},
      {"w8a16_g128", "w=int8_g128_asym"},
      {"w6a16_g128", "w=int6_g128_asym"},
      {"w5a16_g128", "w=int5_g128_asym"},
      {"w4a16", "w=int4_channel_asym"},
      {"w4a16_g128", "w=int4_g128_asym"},
      {"w4a16_g128_sym", "w=int4_g128_sym"},
      {"w4a16_g64", "w=int4_g64_asym"},
      {"w4a16_g32", "w=int4_g32_asym"},
      {"w3a16_g128", "w=int3_g128_asym"},
      {"w2a16_g64", "w=int2_g64_asym"},
      {"fp8", "w=fp8_e4m3_channel"},
      {"fp8_e5m2", "w=fp8_e5m2_channel"},
      {"fp8_e3m4", "w=fp8_e3m4_channel"},
      {"fp8_e2m5", "w=fp8_e2m5_channel"},
      {"fp6_e2m3", "w=fp6_e2m3_channel"},
      {"fp6_e3m2", "w=fp6_e3m2_channel"},
      {"fp6_e4m1", "w=fp6_e4m1_channel"},
      {"fp4_e2m1", "w=fp4_e2m1_g32_sf16"},
      {"fp4_e1m2", "w=fp4_e1m2_g32_sf16"},
      {"fp4_e3m0", "w=fp4_e3m0_g32_sf16"},
      {"mxfp8", "w=fp8_e4m3_g32_se8m0_ceil"},
      {"mxfp8_e5m2", "w=fp8_e5m2_g32_se8m0_ceil"},
      {"mxfp6_e2m3", "w=fp6_e2m3_g32_se8m0_floor"},
      {"mxfp6_e3m2", "w=fp6_e3m2_g32_se8m0_floor"},
      {"mxfp4", "w=fp4_e2m1_g32_se8m0_floor"},
      {"mxfp4_ceil", "w=fp4_e2m1_g32_se8m0_ceil"},
      {"mxint8", "w=fixed8_g32_se8m0_floor"},
      {"nvfp4", "w=fp4_e2m1_g16_se4m3_4over6"},
      {"nvfp4_plain", "w=fp4_e2m1_g16_se4m3"},
      {"nf4", "w=nf4_g64_sf32"},
      {"nf4_dq", "w=nf4_g64_sdq8"},
      {"nf3", "w=nf3_g64_sf32"},
      {"nf2", "w=nf2_g64_sf32"},
      {"bnb_fp4", "w=bnb4_g64_sf32"},
      {"fp8_b128x128", "w=fp8_e4m3_b128x128"},
      {"ternary", "w=ternary_g128_sf16"},
      {"binary", "w=binary_g128_sf16"},
  };
  for (const auto& [name, definition] : released) {
    const auto& aliases = format_aliases();
    const auto found = std::ranges::find(aliases, name, &FormatAlias::name);
    ASSERT_NE(found, aliases.end()) << name;
    EXPECT_EQ(found->definition, definition);
  }
}

TEST(Registry, NamesAreUnique) {
  std::vector<std::string> names;
  for (const FormatAlias& alias : format_aliases()) names.push_back(alias.name);
  std::ranges::sort(names);
  EXPECT_EQ(std::ranges::adjacent_find(names), names.end());
}

TEST(Grammar, SpellsOutDefaults) {
  EXPECT_EQ(parse_weight_format("int4")->name(), "int4_channel_asym");
  EXPECT_EQ(parse_weight_format("int4_sym")->name(), "int4_channel_sym");
  EXPECT_EQ(parse_weight_format("int4_asym_g128")->name(), "int4_g128_asym");
  EXPECT_EQ(parse_weight_format("int4_g128_sf16")->name(), "int4_g128_asym");
  EXPECT_EQ(parse_weight_format("w4a16_g64")->name(), "int4_g64_asym");
  EXPECT_EQ(parse_weight_format("int8_strict_b64x32_sym")->name(), "int8_b64x32_sym_strict");
  EXPECT_EQ(parse_weight_format("int4_g32_sym_full_sf32")->name(), "int4_g32_sym_full_sf32");
  EXPECT_EQ(parse_weight_format("fp8_b128x128")->name(), "fp8_e4m3_b128x128");
  EXPECT_EQ(parse_weight_format("ternary_channel")->name(), "ternary_channel_mean");
}

TEST(Grammar, ReadsModelFormats) {
  const ModelFormat whole = parse_model_format("w=int4_g128_asym,a=bf16,kv=f16,e=bf16");
  EXPECT_EQ(whole.weights->name(), "int4_g128_asym");
  EXPECT_EQ(whole.embeddings->name(), "bf16");
  EXPECT_EQ(whole.kv, KvType::kF16);
  EXPECT_TRUE(whole.scale_type_from_checkpoint);

  const ModelFormat bare = parse_model_format("int8_tensor_sym_sf32");
  EXPECT_EQ(bare.weights->name(), "int8_tensor_sym_sf32");
  EXPECT_EQ(bare.embeddings, nullptr);
  EXPECT_EQ(bare.kv, std::nullopt);
  EXPECT_FALSE(bare.scale_type_from_checkpoint);
}

TEST(Grammar, RefusesWhatItDoesNotKnow) {
  EXPECT_ERROR(parse_model_format("w4a16_g12"), ErrorKind::kUsage, "did you mean w4a16_g128");
  for (const char* text : {"",
                           "int",
                           "int4_",
                           "int4_g",
                           "int4_g128_g64",
                           "int4_sym_asym",
                           "w=",
                           "q=int4",
                           "w=int4,w=int4",
                           "int4_gx",
                           "int4_sf8",
                           "intx",
                           "f64",
                           ",",
                           "int4_channel_g32",
                           "w=int4,,",
                           "int4_b128",
                           "int4_bx",
                           "int4_b8x8_g8",
                           "int4_mean",
                           "nf4_full",
                           "int4_g99999999999999999999"}) {
    EXPECT_ERROR(parse_model_format(text), ErrorKind::kUsage, "format");
  }
  EXPECT_ERROR(parse_model_format(std::string(1 << 20, 'w')), ErrorKind::kUsage, "unknown");
}

TEST(Grammar, SaysWhatItCannotCompute) {
  EXPECT_EQ(parse_model_format("w=int4,kv=int8_head").kv, KvType::kInt8);
  EXPECT_EQ(parse_model_format("w=int4,kv=int4_head").kv, KvType::kInt4);
  EXPECT_EQ(parse_model_format("w=int4,kv=fp8_head").kv, KvType::kFp8);
  EXPECT_EQ(parse_model_format("kv=int4_head_hadamard").kv, KvFormat(KvType::kInt4, true));
  for (const char* unknown :
       {"int8", "int8_channel", "int2_head", "f16_head", "f16_hadamard", "int8_hadamard", ""}) {
    EXPECT_ERROR(parse_model_format(std::string("kv=") + unknown), ErrorKind::kUsage, "kv=");
  }
  EXPECT_ERROR(parse_model_format("kv=int4_heat"), ErrorKind::kUsage, "did you mean int4_head");
  EXPECT_ERROR(parse_model_format("int9"), ErrorKind::kUnsupported, "2 to 8");
  EXPECT_ERROR(parse_model_format("int1"), ErrorKind::kUnsupported, "2 to 8");
  EXPECT_ERROR(parse_model_format("int4_g0"), ErrorKind::kUnsupported, "group");
  EXPECT_ERROR(parse_model_format("int4_b0x128"), ErrorKind::kUnsupported, "block");
  EXPECT_ERROR(parse_model_format("int4_b128x0"), ErrorKind::kUnsupported, "group");
  EXPECT_ERROR(parse_model_format("int4_strict"), ErrorKind::kUnsupported, "symmetric");
  EXPECT_ERROR(parse_model_format("nf4_mean"), ErrorKind::kUnsupported, "binary and ternary");
  EXPECT_ERROR(parse_model_format("int4_g-8"), ErrorKind::kUnsupported, "group");
}

TEST(Registry, ChangesTheScaleType) {
  EXPECT_EQ(with_scale_type(parse_weight_format("int4_g128"), DType::kBF16)->name(),
            "int4_g128_asym_sbf16");
  EXPECT_EQ(with_scale_type(parse_weight_format("bf16"), DType::kF16)->name(), "bf16");
  EXPECT_EQ(with_scale_type(nullptr, DType::kF16), nullptr);
}

}  // namespace
}  // namespace nibble
