// Importance measured on a model against sums taken by hand.
#include <cmath>

#include "model/arch.h"
#include "model/model.h"
#include "quantize/imatrix_pass.h"
#include "support/exact_backend.h"
#include "support/test_data.h"

namespace nibble {
namespace {

// What meets the first block's q, k and v are embeddings behind a norm.
TEST(MeasureImatrix, SumsTheSquaresOfInputs) {
  const auto checkpoint = open_checkpoint(test::tiny_novel());
  const auto backend = test::exact_backend();
  const std::vector<std::int32_t> ids = {1, 5, 343, 275, 305, 28, 2003, 2394, 201, 77, 9};
  const Imatrix imatrix = measure_imatrix(*checkpoint, *backend, ids, 4);
  EXPECT_EQ(imatrix.source.chunks, 2u);
  EXPECT_EQ(imatrix.source.chunk_size, 4u);
  EXPECT_EQ(imatrix.entries().size(), 6u * 7u);

  const Tensor table = to_float(checkpoint->tensor("model.embed_tokens.weight"));
  const Tensor norm = to_float(checkpoint->tensor("model.layers.0.input_layernorm.weight"));
  constexpr std::int64_t kHidden = 256;
  std::vector<double> sums(kHidden);
  for (std::size_t t = 0; t < 8; ++t) {  // whole windows
    const float* x = table.data<float>() + ids[t] * kHidden;
    double square = 0;
    for (std::int64_t c = 0; c < kHidden; ++c) square += static_cast<double>(x[c]) * x[c];
    const double scale = 1 / std::sqrt(square / kHidden + 1e-5);
    for (std::int64_t c = 0; c < kHidden; ++c) {
      const double y = x[c] * scale * static_cast<double>(norm.data<float>()[c]);
      sums[static_cast<std::size_t>(c)] += y * y;
    }
  }
  for (const char* name : {"attn_q", "attn_k", "attn_v"}) {
    const ImatrixEntry& entry = imatrix.entries().at(std::string("blk.0.") + name + ".weight");
    EXPECT_EQ(entry.counts, std::vector<float>{8});
    ASSERT_EQ(entry.sums.size(), sums.size());
    for (std::size_t c = 0; c < sums.size(); ++c) {
      EXPECT_NEAR(static_cast<double>(entry.sums[c]), sums[c], 1e-5 * sums[c] + 1e-9) << c;
    }
  }
  EXPECT_EQ(imatrix.entries().at("blk.5.ffn_down.weight").sums.size(), 768u);
}

TEST(MeasureImatrix, NeedsTokensAndAnArchitectureOfGguf) {
  const auto checkpoint = open_checkpoint(test::tiny_novel());
  const auto backend = test::exact_backend();
  EXPECT_ERROR(measure_imatrix(*checkpoint, *backend, {}, 4), ErrorKind::kUsage, "importance");
  const auto other =
      open_checkpoint(test::source_dir() / "tests/golden/archs/opt_plain_norm_no_bias");
  const std::vector<std::int32_t> ids = {1, 2};
  EXPECT_ERROR(measure_imatrix(*other, *backend, ids, 4), ErrorKind::kUnsupported, "'opt'");
}

}  // namespace
}  // namespace nibble
