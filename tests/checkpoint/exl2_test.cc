// EXL2: what its description says, byte by byte, and what we write.
#include <algorithm>
#include <fstream>

#include "checkpoint/checkpoint.h"
#include "checkpoint/encoding.h"
#include "checkpoint/exl2_layout.h"
#include "checkpoint/writer.h"
#include "formats/mixed_format.h"
#include "formats/registry.h"
#include "support/golden_checkpoint.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::golden_checkpoint;
using test::TempDir;

TEST(Exl2, DecodesToTheValuesThatWerePacked) {
  for (const test::GoldenWeight& weight : test::golden_weights("exl2")) {
    EXPECT_EQ(weight.ours, weight.theirs) << weight.module;
  }
}

TEST(Exl2, KeepsTheGroupsOfEveryModule) {
  const auto checkpoint = open_checkpoint(golden_checkpoint("exl2"));
  const auto format = [&](const char* module) { return checkpoint->linear(module).format->name(); };
  EXPECT_EQ(format("layers.0.many"), "mixed_8g32x1_6g128x1_5g64x2_4g32x1_3g32x1_2g32");
  EXPECT_EQ(format("layers.0.even"), "mixed_4g64");
  EXPECT_EQ(format("layers.0.short"), "mixed_6g32x1_3g64");
  EXPECT_EQ(format("layers.0.last"), "mixed_6g32x1_3g32");
  EXPECT_EQ(checkpoint->linear("lm_head").rows, 40);
}

TEST(Exl2, EncodesToTheBytesThatWereRead) {
  const auto checkpoint = open_checkpoint(golden_checkpoint("exl2"));
  for (const char* module : {"layers.0.many", "layers.0.even", "layers.0.short", "layers.0.last"}) {
    const QuantTensor weight = checkpoint->linear(module);
    const auto plan = exl2_encoding().plan({module, weight.format, weight.rows, weight.cols});
    const auto encoded = exl2_encoding().encode(module, weight);
    ASSERT_EQ(plan.size(), encoded.size());
    for (std::size_t i = 0; i < plan.size(); ++i) {
      const Tensor original = checkpoint->tensor(plan[i].name);
      EXPECT_EQ(plan[i].dtype, original.dtype()) << plan[i].name;
      EXPECT_EQ(plan[i].shape, original.shape()) << plan[i].name;
      EXPECT_EQ(encoded[i].second.shape(), original.shape()) << plan[i].name;
      EXPECT_TRUE(std::ranges::equal(encoded[i].second.bytes(), original.bytes())) << plan[i].name;
    }
  }
}

TEST(Exl2, SaysWhatItHasNoPlaceFor) {
  const FormatPtr format = parse_weight_format("mixed_4g32");
  EXPECT_ERROR(exl2_encoding().plan({"m", format, 40, 64}), ErrorKind::kUnsupported, "head in 32s");
  EXPECT_ERROR(exl2_encoding().plan({"m", format, 64, 1 << 19}), ErrorKind::kUnsupported, "I16");
  QuantizedModule table{"m", format, 64, 64};
  table.linear = false;
  EXPECT_ERROR(exl2_encoding().plan(table), ErrorKind::kUnsupported, "linear layers");
  EXPECT_NE(exl2_encoding().why_not(*parse_weight_format("int4_g32_sym")), "");
}

TEST(Exl2, RefusesGroupsThatDoNotFit) {
  using Groups = std::vector<Exl2Group>;
  const auto refused = [](const Groups& groups, std::int64_t words, std::int64_t cols) {
    EXPECT_ERROR(exl2_descriptor(groups, words, cols, "m"), ErrorKind::kCorrupt, "q_groups");
  };
  EXPECT_EQ(make_format(exl2_descriptor({{4, 0}}, 8, 64, "m"))->name(), "mixed_4g64");
  refused({}, 8, 64);
  refused({{4, 1}}, 8, 64);           // begins behind
  refused({{4, 0}, {4, 0}}, 8, 64);   // an empty one
  refused({{4, 4}, {4, 0}}, 8, 64);   // falling
  refused({{0, 0}}, 8, 64);           // no bits
  refused({{9, 0}}, 18, 64);          // too many
  refused({{4, 0}, {4, 8}}, 12, 64);  // columns ran out
  refused({{4, 0}}, 9, 64);           // a word too many
  refused({{4, 0}}, 7, 64);           // one too few
  const Groups seven = {{7, 0}};
  EXPECT_ERROR(make_format(exl2_descriptor(seven, 7, 32, "m")), ErrorKind::kUnsupported, "7 bits");
}

// A checkpoint of one module with some of its tensors replaced.
void write_spoiled(const std::filesystem::path& dir, const std::string& name,
                   const Tensor& replacement) {
  const auto source = open_checkpoint(golden_checkpoint("exl2"));
  std::vector<StoredTensor> plan;
  std::vector<Tensor> tensors;
  for (const std::string& tensor : source->names()) {
    if (!tensor.starts_with("layers.0.even")) continue;
    tensors.push_back(tensor.ends_with(name) ? replacement : source->tensor(tensor));
    plan.push_back({tensor, tensors.back().dtype(), tensors.back().shape()});
  }
  ShardedWriter writer(dir, plan);
  for (std::size_t i = 0; i < plan.size(); ++i) writer.write(plan[i].name, tensors[i]);
  writer.finish();
  write_config(dir, {{"model_type", "llama"}}, {{"quant_method", "exl2"}});
}

TEST(Exl2, RefusesTensorsThatDoNotFit) {
  const auto refused = [](const std::string& name, const Tensor& tensor, const char* text) {
    TempDir dir;
    write_spoiled(dir.path(), name, tensor);
    EXPECT_ERROR(open_checkpoint(dir.path())->linear("layers.0.even"), ErrorKind::kCorrupt, text);
  };
  const auto zeros = [](DType dtype, const Shape& shape) {
    Tensor tensor = Tensor::allocate(dtype, shape);
    std::memset(tensor.address(), 0, tensor.byte_size());
    return tensor;
  };
  refused(".q_invperm", zeros(DType::kI32, {192}), "each once");
  refused(".q_invperm", zeros(DType::kI32, {180}), "q_groups");
  refused(".q_invperm", zeros(DType::kI16, {192}), "I32");
  refused(".q_scale", zeros(DType::kI32, {3, 5}), "scales");
  refused(".q_scale_max", zeros(DType::kF16, {2}), "scale_max");
  refused(".q_groups", zeros(DType::kI16, {6}), "q_groups");
  const float infinite[3] = {1, std::numeric_limits<float>::infinity(), 1};
  refused(".q_scale_max", from_float(infinite, DType::kF16, {3}), "finite");
}

}  // namespace
}  // namespace nibble
