#include <algorithm>

#include "checkpoint/checkpoint.h"
#include "checkpoint/encoding.h"
#include "checkpoint/nibble_descriptor.h"
#include "checkpoint/writer.h"
#include "formats/registry.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::TempDir;

TEST(NibbleDescriptor, RoundTripsEveryIntegerFormat) {
  for (const char* name : {"int2_g16_sym_sf16", "int4_g128_asym_sbf16", "int8_channel_sym_sf32",
                           "int5_tensor_asym_sf16"}) {
    const WeightDescriptor descriptor = parse_weight_format(name)->descriptor();
    EXPECT_EQ(descriptor_from_json(to_json(descriptor), "x"), descriptor) << name;
  }
}

TEST(NibbleDescriptor, RoundTripsEveryRegisteredFormat) {
  for (const FormatAlias& alias : format_aliases()) {
    const WeightDescriptor descriptor = parse_weight_format(alias.name)->descriptor();
    if (descriptor.element.kind == ElementKind::kFloat) continue;
    EXPECT_EQ(descriptor_from_json(to_json(descriptor), "x"), descriptor) << alias.name;
  }
  const WeightDescriptor real = parse_weight_format("fp8_e4m3allb7.1_g16_sf16")->descriptor();
  EXPECT_EQ(descriptor_from_json(Json::parse(to_json(real).dump()), "x"), real);
}

TEST(NibbleDescriptor, SpellsTablesAsDocumented) {
  EXPECT_EQ(to_json(parse_weight_format("nvfp4")->descriptor()), Json::parse(R"({
      "element": {"kind": "float", "exponent": 2, "mantissa": 1, "bias": 1.0, "specials": "none"},
      "scheme": {"granularity": "group", "group": 16, "scale_type": "F8_E4M3",
                 "rule": "four_over_six", "second_level": "tensor"}})"));
  EXPECT_EQ(to_json(parse_weight_format("nf4_dq")->descriptor()), Json::parse(R"({
      "element": {"kind": "codebook", "codebook": "nf4"},
      "scheme": {"granularity": "group", "group": 64, "scale_type": "U8", "rule": "absmax",
                 "second_level": "dynamic"}})"));
}

TEST(NibbleDescriptor, RefusesHostileTables) {
  const auto read = [](const char* name, const char* patch) {
    Json json = to_json(parse_weight_format(name)->descriptor());
    json.merge_patch(Json::parse(patch));
    make_format(descriptor_from_json(json, "config"));
  };
  read("nvfp4", "{}");
  const char* bad = R"({"element":{"exponent":64}})";
  EXPECT_ERROR(read("nvfp4", bad), ErrorKind::kUnsupported, "64 exponent");
  EXPECT_ERROR(read("nvfp4", R"({"element":{"exponent":-1}})"), ErrorKind::kCorrupt, "exponent");
  EXPECT_ERROR(read("nvfp4", R"({"element":{"mantissa":1e300}})"), ErrorKind::kCorrupt, "mantissa");
  EXPECT_ERROR(read("nvfp4", R"({"element":{"bias":1e300}})"), ErrorKind::kUnsupported, "bias");
  EXPECT_ERROR(read("nvfp4", R"({"element":{"specials":"all"}})"), ErrorKind::kCorrupt, "'all'");
  EXPECT_ERROR(read("nvfp4", R"({"element":{"bits":4}})"), ErrorKind::kUnsupported, "not know");
  EXPECT_ERROR(read("nf4", R"({"element":{"codebook":"nf5"}})"), ErrorKind::kUnsupported, "'nf5'");
  EXPECT_ERROR(read("nf4", R"({"scheme":{"group":0}})"), ErrorKind::kUnsupported, "group");
  EXPECT_ERROR(read("nf4", R"({"scheme":{"scale_type":"I64"}})"), ErrorKind::kUnsupported, "I64");
  EXPECT_ERROR(read("nf4", R"({"scheme":{"second_level":"tensor"}})"), ErrorKind::kUnsupported,
               "second level");
  EXPECT_ERROR(read("nf4", R"({"scheme":{"symmetric":true}})"), ErrorKind::kUnsupported,
               "not know");
  EXPECT_ERROR(read("nvfp4", R"({"scheme":{"rule":7}})"), ErrorKind::kCorrupt, "'rule'");
}

TEST(NibbleDescriptor, IsSpelledAsDocumented) {
  const Json expected = Json::parse(R"({"element": {"kind": "int", "bits": 4},
      "scheme": {"granularity": "group", "group": 128, "symmetric": false, "scale_type": "F16"}})");
  EXPECT_EQ(to_json(parse_weight_format("int4_g128_asym_sf16")->descriptor()), expected);
}

Json patched(const char* patch) {
  Json json = to_json(parse_weight_format("int4_g128_asym_sf16")->descriptor());
  json.merge_patch(Json::parse(patch));
  return json;
}

TEST(NibbleDescriptor, RefusesWhatItDoesNotKnow) {
  const auto read = [](const Json& json) { descriptor_from_json(json, "config"); };
  EXPECT_ERROR(read(Json(1)), ErrorKind::kCorrupt, "config: no object");
  EXPECT_ERROR(read(patched(R"({"element":null})")), ErrorKind::kCorrupt, "'element'");
  EXPECT_ERROR(read(patched(R"({"element":{"bits":"4"}})")), ErrorKind::kCorrupt, "'bits'");
  EXPECT_ERROR(read(patched(R"({"element":{"bits":18446744073709551615}})")), ErrorKind::kCorrupt,
               "'bits'");
  EXPECT_ERROR(read(patched(R"({"element":{"kind":"lattice"}})")), ErrorKind::kUnsupported,
               "'lattice'");
  EXPECT_ERROR(read(patched(R"({"outliers":{}})")), ErrorKind::kUnsupported, "does not know");
  EXPECT_ERROR(read(patched(R"({"scheme":{"rank":1}})")), ErrorKind::kUnsupported, "does not know");
  EXPECT_ERROR(read(patched(R"({"scheme":{"granularity":"row"}})")), ErrorKind::kCorrupt, "'row'");
  EXPECT_ERROR(read(patched(R"({"scheme":{"scale_type":"F12"}})")), ErrorKind::kCorrupt, "'F12'");
  EXPECT_ERROR(read(patched(R"({"scheme":{"symmetric":0}})")), ErrorKind::kCorrupt, "'symmetric'");
}

// A checkpoint of one module "a" [8, 64] under a changed quantization_config.
void open_with(const Json& patch, const std::string& read = "a") {
  TempDir dir;
  const FormatPtr format = parse_weight_format("int4_g32_asym_sf16");
  const std::vector<float> values(8 * 64, 0.5f);
  const QuantTensor weight = format->encode(values.data(), 8, 64);
  const QuantizedModule module{"a", format, 8, 64};
  ShardedWriter writer(dir.path(), nibble_encoding().plan(module));
  for (const auto& [name, tensor] : nibble_encoding().encode("a", weight)) {
    writer.write(name, tensor);
  }
  writer.finish();
  Json config = nibble_encoding().quantization_config({module}, {});
  config.merge_patch(patch);
  write_config(dir.path(), Json::object(), config);
  EXPECT_EQ(open_checkpoint(dir.path())->linear(read).format->name(), format->name());
}

TEST(NibbleCheckpoint, RefusesContradictingConfigs) {
  open_with(Json::object());
  EXPECT_ERROR(open_with({{"version", 2}}), ErrorKind::kUnsupported, "version");
  EXPECT_ERROR(open_with({{"formats", 1}}), ErrorKind::kCorrupt, "'formats'");
  EXPECT_ERROR(open_with({{"modules", Json::array()}}), ErrorKind::kCorrupt, "'modules'");
  EXPECT_ERROR(open_with({{"modules", {{"a", 1}}}}), ErrorKind::kCorrupt, "module 'a' needs");
  EXPECT_ERROR(open_with({{"modules", {{"a", {{"format", 1}}}}}}), ErrorKind::kCorrupt, "index");
  EXPECT_ERROR(open_with({{"modules", {{"a", {{"format", -1}}}}}}), ErrorKind::kCorrupt, "index");
  const auto shape = [](const Json& s) { return Json{{"modules", {{"a", {{"shape", s}}}}}}; };
  EXPECT_ERROR(open_with(shape({8, 32})), ErrorKind::kCorrupt, "[8, 4]");
  EXPECT_ERROR(open_with(shape({8, 65})), ErrorKind::kCorrupt, "module 'a'");
  EXPECT_ERROR(open_with(shape({0, 64})), ErrorKind::kCorrupt, "has the shape [0,64]");
  EXPECT_ERROR(open_with(shape({8, UINT64_MAX})), ErrorKind::kCorrupt, "has the shape");
  EXPECT_ERROR(open_with(shape({8, 1024.5})), ErrorKind::kCorrupt, "a shape");
  EXPECT_ERROR(open_with({{"modules", {{"b", {{"format", 0}, {"shape", {8, 64}}}}}}}, "b"),
               ErrorKind::kCorrupt, "no tensor 'b.weight.codes'");
}

TEST(ChooseEncoding, PrefersThePublicConvention) {
  EXPECT_EQ(choose_encoding({{"a", parse_weight_format("int4_g32_asym"), 8, 64}}).convention(),
            "compressed-tensors");
  EXPECT_TRUE(compressed_tensors_can_say(*parse_weight_format("int3_g32_sym_sf16")));
  EXPECT_FALSE(compressed_tensors_can_say(*parse_weight_format("bf16")));
  EXPECT_EQ(choose_encoding({{"a", parse_weight_format("int4_g32_asym"), 8, 64},
                             {"b", parse_weight_format("nf4"), 8, 64}})
                .convention(),
            "nibble");
  EXPECT_ERROR(choose_encoding({{"a", parse_weight_format("bf16"), 8, 64}}),
               ErrorKind::kUnsupported, "stored plain");
}

}  // namespace
}  // namespace nibble
