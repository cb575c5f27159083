// EXL3: its codebooks, tiles and transforms.
#include <cmath>
#include <random>

#include "checkpoint/checkpoint.h"
#include "checkpoint/encoding.h"
#include "checkpoint/exl3_tiles.h"
#include "checkpoint/writer.h"
#include "formats/registry.h"
#include "formats/trellis.h"
#include "support/golden_checkpoint.h"
#include "support/test_data.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

using test::golden_checkpoint;
using test::TempDir;

// Computed from the description of the codebooks; sums of two F16 before they are rounded.
TEST(Exl3, CodebooksHaveTheirValues) {
  constexpr std::uint32_t kStates[] = {0, 1, 0x1234, 0x8000, 0xFFFF};
  struct Case {
    Exl3Codebook codebook;
    float values[5];
  };
  constexpr Case kCases[] = {
      {Exl3Codebook::kThreeInstructions,
       {0.76806640625f, -0.9193115234375f, -2.19970703125f, -0.498046875f, -0.158203125f}},
      {Exl3Codebook::kMcg,
       {1.84375f, 0.134521484375f, 1.5142822265625f, -0.63525390625f, 0.85009765625f}},
      {Exl3Codebook::kMul1,
       {-3.453125f, 0.64111328125f, -0.5771484375f, -0.8681640625f, -0.6513671875f}}};
  for (const auto& [codebook, values] : kCases) {
    for (int i = 0; i < 5; ++i) {
      EXPECT_EQ(exl3_value(codebook, kStates[i]), to_float(to_f16(values[i])));
    }
  }
}

TEST(Exl3, DecodesToTheValuesOfTheDescription) {
  for (const test::GoldenWeight& weight : test::golden_weights("exl3")) {
    ASSERT_EQ(weight.ours.size(), weight.theirs.size()) << weight.module;
    float most = 0;
    for (const float v : weight.theirs) most = std::max(most, std::abs(v));
    // Sums of 128 twice in float32, then one rounding to F16.
    const double slack = 128 * most * test::unit_roundoff(DType::kF32);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < weight.ours.size(); ++i) {
      const double error = std::abs(double{weight.ours[i]} - double{weight.theirs[i]});
      const double bound = std::abs(double{weight.theirs[i]}) * test::unit_roundoff(DType::kF16);
      wrong += error > bound + slack + 0x1p-25 ? 1 : 0;
    }
    EXPECT_EQ(wrong, 0u) << weight.module;
  }
}

TEST(Exl3, SaysThatItIsDecoded) {
  const auto checkpoint = open_checkpoint(golden_checkpoint("exl3"));
  EXPECT_EQ(checkpoint->linear("layers.0.mcg").format->name(), "f16");
  EXPECT_EQ(checkpoint->linear("lm_head").rows, 200);
  EXPECT_THAT(checkpoint->notes(), testing::ElementsAre(testing::HasSubstr("decoded")));
}

// A checkpoint of one module, some of its tensors replaced.
void write_spoiled(const std::filesystem::path& dir, const std::string& end,
                   const Tensor& replacement) {
  const auto source = open_checkpoint(golden_checkpoint("exl3"));
  std::vector<StoredTensor> plan;
  std::vector<Tensor> tensors;
  for (const std::string& name : source->names()) {
    if (!name.starts_with("layers.0.mcg")) continue;
    tensors.push_back(name.ends_with(end) ? replacement : source->tensor(name));
    plan.push_back({name, tensors.back().dtype(), tensors.back().shape()});
  }
  ShardedWriter writer(dir, plan);
  for (std::size_t i = 0; i < plan.size(); ++i) writer.write(plan[i].name, tensors[i]);
  writer.finish();
  write_config(dir, {{"model_type", "llama"}}, {{"quant_method", "exl3"}});
}

TEST(Exl3, RefusesTensorsThatDoNotFit) {
  const auto refused = [](const std::string& end, const Tensor& tensor, ErrorKind kind,
                          const char* text) {
    TempDir dir;
    write_spoiled(dir.path(), end, tensor);
    EXPECT_ERROR(open_checkpoint(dir.path())->linear("layers.0.mcg"), kind, text);
  };
  const auto allocate = [](DType dtype, const Shape& shape) {
    return Tensor::allocate(dtype, shape);
  };
  const ErrorKind corrupt = ErrorKind::kCorrupt, unsupported = ErrorKind::kUnsupported;
  refused(".trellis", allocate(DType::kI16, {8, 15, 64}), corrupt, "128s");
  refused(".trellis", allocate(DType::kI16, {8, 16}), corrupt, "128s");
  refused(".trellis", allocate(DType::kI16, {8, 16, 40}), unsupported, "2.5 bits");
  refused(".trellis", allocate(DType::kI16, {8, 16, 144}), unsupported, "9 bits");
  refused(".suh", allocate(DType::kF16, {127}), corrupt, "128 are needed");
  refused(".svh", allocate(DType::kF32, {256}), corrupt, "F16");
  const std::vector<float> infinite(256, std::numeric_limits<float>::infinity());
  refused(".svh", from_float(infinite.data(), DType::kF16, {256}), corrupt, "beyond F16");
  Tensor number = allocate(DType::kI32, {1});
  number.mutable_data<std::int32_t>()[0] = 7;
  refused(".mcg", number, unsupported, "multiplier");
}

// What is written is read by the decoder that the golden checkpoint holds to the description.
TEST(Exl3, IsWrittenAsItIsRead) {
  const std::int64_t rows = 256, cols = 384;
  std::mt19937 random(5);
  std::vector<QuantizedModule> modules;
  std::vector<QuantTensor> weights;
  std::vector<StoredTensor> plan;
  for (const int bits : {2, 3, 5, 8}) {
    const FormatPtr format = parse_weight_format(fmt::format("trellis{}_exl3", bits));
    modules.push_back({fmt::format("layers.0.m{}", bits), format, rows, cols});
    std::vector<float> scales;
    for (std::int64_t row = 0; row < rows; ++row) {
      scales.push_back(0.001f * static_cast<float>(row % 100));
    }
    QuantTensor& weight = weights.emplace_back(trellis_tensor(format, rows, cols, scales));
    for (std::int64_t tile = 0; tile < rows / 16 * (cols / 16); ++tile) {
      const auto words = trellis_words(weight, tile / (cols / 16), tile % (cols / 16));
      for (std::uint32_t& word : words) word = static_cast<std::uint32_t>(random());
    }
    const auto tensors = exl3_encoding().plan(modules.back());
    plan.insert(plan.end(), tensors.begin(), tensors.end());
  }
  TempDir dir;
  ShardedWriter writer(dir.path(), plan);
  for (std::size_t i = 0; i < modules.size(); ++i) {
    for (const auto& [name, tensor] : exl3_encoding().encode(modules[i].module, weights[i])) {
      writer.write(name, tensor);
    }
  }
  writer.finish();
  write_config(dir.path(), {{"model_type", "llama"}},
               exl3_encoding().quantization_config(modules, {}));
  const auto checkpoint = open_checkpoint(dir.path());
  EXPECT_EQ(checkpoint->convention(), "exl3");
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const QuantTensor read = checkpoint->linear(modules[i].module);
    std::vector<float> theirs(rows * cols), ours(rows * cols);
    decode_all(read, theirs.data());
    decode_all(weights[i], ours.data());
    for (float& v : ours) v = to_float(to_f16(v));
    EXPECT_EQ(theirs, ours) << modules[i].module;
  }
}

TEST(Exl3, SaysWhatItHasNoPlaceFor) {
  EXPECT_NE(exl3_encoding().why_not(*parse_weight_format("trellis4")), "");
  EXPECT_NE(nibble_encoding().why_not(*parse_weight_format("trellis4_exl3")), "");
  QuantizedModule table{"m", parse_weight_format("trellis4_exl3"), 128, 128};
  table.linear = false;
  EXPECT_ERROR(exl3_encoding().plan(table), ErrorKind::kUnsupported, "linear layers");
}

}  // namespace
}  // namespace nibble
