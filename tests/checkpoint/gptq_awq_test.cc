// GPTQ and AWQ: what the packages pack, and what we write.
#include <algorithm>
#include <fstream>

#include "checkpoint/affine_parts.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/encoding.h"
#include "checkpoint/gptq_config.h"
#include "checkpoint/pack_awq.h"
#include "checkpoint/writer.h"
#include "formats/registry.h"
#include "support/golden_checkpoint.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::golden_checkpoint;
using test::TempDir;

class GptqAwqGolden : public testing::TestWithParam<const char*> {};

TEST_P(GptqAwqGolden, DecodesToTheValuesThatThePackagePacked) {
  for (const test::GoldenWeight& weight : test::golden_weights(GetParam())) {
    EXPECT_EQ(weight.ours, weight.theirs) << weight.module;
  }
}

INSTANTIATE_TEST_SUITE_P(, GptqAwqGolden,
                         testing::Values("gptq_v1", "gptq_v2", "gptq_act_order", "awq_gemm_g32",
                                         "awq_gemm_g64", "awq_gemv_g32", "awq_gemv_g64",
                                         "awq_gemv_fast_g32", "awq_gemv_fast_g64"),
                         [](const auto& test) { return std::string(test.param); });

TEST(Gptq, KeepsTheFormatOfEveryModule) {
  const auto checkpoint = open_checkpoint(golden_checkpoint("gptq_v1"));
  EXPECT_EQ(checkpoint->linear("layers.3.sym.g32").format->name(), "int3_g32_sym");
  EXPECT_EQ(checkpoint->linear("layers.8.asym.gall").format->name(), "int8_channel_asym");
  EXPECT_TRUE(checkpoint->notes().empty());
}

TEST(Gptq, SaysThatActOrderIsDecoded) {
  const auto checkpoint = open_checkpoint(golden_checkpoint("gptq_act_order"));
  EXPECT_EQ(checkpoint->linear("a").format->name(), "f16");
  EXPECT_THAT(checkpoint->notes(), testing::ElementsAre(testing::HasSubstr("1 modules group")));
}

// The bytes of the package's own packing come out again.
void expect_same_bytes(const std::string& name, const WeightEncoding& encoding) {
  const auto checkpoint = open_checkpoint(golden_checkpoint(name));
  int modules = 0;
  for (const std::string& tensor : checkpoint->names()) {
    if (!tensor.ends_with(".qweight")) continue;
    const std::string module = tensor.substr(0, tensor.rfind('.'));
    SCOPED_TRACE(module);
    const QuantTensor weight = checkpoint->linear(module);
    const auto plan = encoding.plan({module, weight.format, weight.rows, weight.cols});
    const auto encoded = encoding.encode(module, weight);
    ASSERT_EQ(plan.size(), encoded.size());
    for (std::size_t i = 0; i < plan.size(); ++i) {
      const Tensor original = checkpoint->tensor(plan[i].name);
      EXPECT_EQ(plan[i].shape, original.shape()) << plan[i].name;
      EXPECT_EQ(encoded[i].second.shape(), original.shape()) << plan[i].name;
      EXPECT_TRUE(std::ranges::equal(encoded[i].second.bytes(), original.bytes())) << plan[i].name;
    }
    ++modules;
  }
  EXPECT_GT(modules, 0);
}

TEST(Gptq, EncodesToTheBytesOfThePackage) {
  expect_same_bytes("gptq_v1", gptq_encoding());
  expect_same_bytes("gptq_v2", gptq_v2_encoding());
}

TEST(Awq, EncodesToTheBytesOfThePackage) { expect_same_bytes("awq_gemm_g32", awq_encoding()); }

TEST(Awq, AWordHoldsItsColumnsInTheOrderOfTheConvention) {
  const std::uint32_t word = 0x75316420;  // columns 0 ... 7 hold 0 ... 7
  const Tensor words = Tensor::view(DType::kI32, {1, 1}, std::as_bytes(std::span(&word, 1)), {});
  const Tensor zeros = awq_gemm_zeros(words);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(std::to_integer<int>(zeros.bytes()[i]), i);
}

TEST(Gptq, ZeroPointsOfSymmetricFilesThatSayTheWrongVersionAreFound) {
  TempDir dir;
  std::filesystem::copy(golden_checkpoint("gptq_v2"), dir / "model");
  Json config = read_json_file((dir / "model/config.json").string());
  config["quantization_config"]["checkpoint_format"] = "gptq";
  std::ofstream(dir / "model/config.json", std::ios::trunc) << config;
  const auto right = open_checkpoint(golden_checkpoint("gptq_v2"));
  const auto wrong = open_checkpoint(dir / "model");
  const QuantTensor a = right->linear("layers.4.sym.g32"), b = wrong->linear("layers.4.sym.g32");
  EXPECT_EQ(a.format->name(), b.format->name());
  EXPECT_TRUE(std::ranges::equal(a.planes[1].bytes(), b.planes[1].bytes()));
}

TEST(Gptq, RefusesWhatItDoesNotRead) {
  EXPECT_ERROR(GptqConfig({{"bits", 5}}, "x"), ErrorKind::kUnsupported, "5 bits");
  EXPECT_ERROR(GptqConfig({{"bits", "4"}}, "x"), ErrorKind::kCorrupt, "bits");
  EXPECT_ERROR(GptqConfig({{"checkpoint_format", "gptq_p"}}, "x"), ErrorKind::kUnsupported,
               "gptq_p");
  EXPECT_ERROR(GptqConfig({{"dynamic", {{"+:(", Json::object()}}}}, "x"), ErrorKind::kCorrupt, "(");
  EXPECT_ERROR(GptqConfig({{"group_size", std::int64_t{1} << 62}}, "x"), ErrorKind::kCorrupt,
               "group_size");
}

TEST(AffineParts, RefusesPartsThatDoNotFit) {
  const auto parts = [] {
    AffineParts p;
    p.rows = 2;
    p.cols = 64;
    p.group = 32;
    p.codes = Tensor::allocate(DType::kI32, {2, 8});
    const float ones[4] = {1, 1, 1, 1};
    p.scales = from_float(ones, DType::kF16, {2, 2});
    p.zeros = Tensor::allocate(DType::kU8, {2, 2});
    return p;
  };
  EXPECT_EQ(assemble(parts(), "w").format->name(), "int4_g32_asym");
  AffineParts wrong = parts();
  wrong.group_of_column.assign(64, 2);
  EXPECT_ERROR(assemble(wrong, "w"), ErrorKind::kCorrupt, "g_idx");
  wrong = parts();
  wrong.zeros = Tensor::allocate(DType::kU8, {2, 1});
  EXPECT_ERROR(assemble(wrong, "w"), ErrorKind::kCorrupt, "zero points");
  wrong = parts();
  wrong.cols = 72;
  EXPECT_ERROR(assemble(wrong, "w"), ErrorKind::kCorrupt, "codes");
}

}  // namespace
}  // namespace nibble
