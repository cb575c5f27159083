// EXL2: what its description says, byte by byte.
#include <algorithm>
#include <cstring>
#include <limits>

#include "base/half.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/exl2_groups.h"
#include "checkpoint/writer.h"
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

TEST(Exl2, SaysThatItIsDecoded) {
  const auto checkpoint = open_checkpoint(golden_checkpoint("exl2"));
  EXPECT_EQ(checkpoint->linear("layers.0.many").format->name(), "f16");
  EXPECT_EQ(checkpoint->linear("lm_head").rows, 40);  // stored as 64
  EXPECT_THAT(checkpoint->notes(), testing::ElementsAre(testing::HasSubstr("decoded")));
}

// Products of F16 are rounded where they are small: 1 / 256 of this is no normal number.
TEST(Exl2, StepsAreThoseOfF16) {
  EXPECT_EQ(exl2_step(15, 1), 1);
  EXPECT_EQ(exl2_step(0, 1), 1.0f / 256);
  const float small = 0x1.004p-9f;  // an F16
  EXPECT_EQ(to_float(to_f16(small)), small);
  EXPECT_EQ(exl2_step(0, small), 0x1p-17f);
  EXPECT_EQ(exl2_step(15, small), 0x1p-9f);
}

TEST(Exl2, RefusesGroupsThatDoNotFit) {
  using Pairs = std::vector<std::int16_t>;
  const auto refused = [](const Pairs& pairs, std::int64_t words, std::int64_t cols) {
    EXPECT_ERROR(exl2_groups(pairs, words, cols, "m"), ErrorKind::kCorrupt, "q_groups");
  };
  const auto sound = exl2_groups(Pairs{6, 0, 3, 6}, 6 + 2, 32 + 20, "m");
  ASSERT_EQ(sound.size(), 2u);
  EXPECT_EQ(sound[0].cols, 32);
  EXPECT_EQ(sound[1].begin, 32);
  EXPECT_EQ(sound[1].cols, 20);  // does not fill its words
  refused({}, 8, 64);
  refused({4}, 8, 64);
  refused({4, 1}, 8, 64);         // begins behind
  refused({4, 0, 4, 0}, 8, 64);   // an empty one
  refused({4, 4, 4, 0}, 8, 64);   // falling
  refused({4, 0, 4, 8}, 12, 64);  // columns ran out
  refused({4, 0}, 9, 64);         // a word too many
  refused({4, 0}, 7, 64);         // one too few
  EXPECT_ERROR(exl2_groups(Pairs{7, 0}, 7, 32, "m"), ErrorKind::kUnsupported, "7 bits");
  EXPECT_ERROR(exl2_groups(Pairs{0, 0}, 7, 32, "m"), ErrorKind::kUnsupported, "0 bits");
}

// A checkpoint of one module with one of its tensors replaced.
void write_spoiled(const std::filesystem::path& dir, const std::string& end,
                   const Tensor& replacement) {
  const auto source = open_checkpoint(golden_checkpoint("exl2"));
  std::vector<StoredTensor> plan;
  std::vector<Tensor> tensors;
  for (const std::string& name : source->names()) {
    if (!name.starts_with("layers.0.even")) continue;
    tensors.push_back(name.ends_with(end) ? replacement : source->tensor(name));
    plan.push_back({name, tensors.back().dtype(), tensors.back().shape()});
  }
  ShardedWriter writer(dir, plan);
  for (std::size_t i = 0; i < plan.size(); ++i) writer.write(plan[i].name, tensors[i]);
  writer.finish();
  write_config(dir, {{"model_type", "llama"}}, {{"quant_method", "exl2"}});
}

TEST(Exl2, RefusesTensorsThatDoNotFit) {
  const auto refused = [](const std::string& end, const Tensor& tensor, const char* text) {
    TempDir dir;
    write_spoiled(dir.path(), end, tensor);
    EXPECT_ERROR(open_checkpoint(dir.path())->linear("layers.0.even"), ErrorKind::kCorrupt, text);
  };
  const auto zeros = [](DType dtype, const Shape& shape) {
    Tensor tensor = Tensor::allocate(dtype, shape);
    std::memset(tensor.address(), 0, tensor.byte_size());
    return tensor;
  };
  refused(".q_invperm", zeros(DType::kI32, {192}), "each once");
  Tensor fewer = zeros(DType::kI32, {180});
  for (int i = 0; i < 180; ++i) fewer.mutable_data<std::int32_t>()[i] = i;
  refused(".q_invperm", fewer, "q_groups");
  refused(".q_invperm", zeros(DType::kI16, {192}), "I32");
  refused(".q_scale", zeros(DType::kI32, {3, 5}), "scales");
  refused(".q_scale_max", zeros(DType::kF16, {2}), "scales");
  const float infinite[3] = {1, std::numeric_limits<float>::infinity(), 1};
  refused(".q_scale_max", from_float(infinite, DType::kF16, {3}), "beyond");
}

}  // namespace
}  // namespace nibble
