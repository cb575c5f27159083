// Ops that are put off, against the same ops one by one.
#include "model/layers/op_chain.h"

#include <gtest/gtest.h>

#include "formats/registry.h"
#include "support/exact_backend.h"
#include "support/forgetful_backend.h"
#include "support/random_floats.h"

namespace nibble {
namespace {

constexpr std::int64_t kRows = 5;
constexpr std::int64_t kCols = 96;
constexpr std::int64_t kOut = 40;
constexpr std::int64_t kRank = 8;

LinearWeight weight(Backend& backend, std::int64_t rows, std::int64_t cols, unsigned seed) {
  const std::vector<float> w = test::random_floats(rows * cols, seed);
  return backend.prepare(parse_weight_format("f32")->encode(w.data(), rows, cols));
}

// A product of low rank reads what its linear reads, which a chain would have forgotten.
TEST(OpChain, ProductsOfLowRankReadWhatTheirLinearReads) {
  test::ForgetfulBackend backend(test::exact_backend(2));
  Linear plain, corrected;
  plain.weight = weight(backend, kOut, kCols, 1);
  corrected.weight = weight(backend, kOut, kCols, 2);
  corrected.added = std::make_shared<LowRankProduct>(
      LowRankProduct{weight(backend, kRank, kCols, 3), weight(backend, kOut, kRank, 4)});
  const std::vector<float> x = test::random_floats(kRows * kCols, 5);
  const std::vector<float> before = test::random_floats(kRows * kOut, 6);
  std::vector<float> normed(x.size()), y(before), z(before);
  NormSpec spec;
  spec.eps = 1e-5f;
  const NormArgs norm = norm_args(spec, {}, x.data(), kRows, kCols, normed.data());

  OpChain chain(backend);
  chain.add(norm);
  chain.add({{plain, {y.data()}}, {corrected, {z.data(), true}}}, normed.data(), kRows);
  chain.run();

  std::vector<float> narrow(kRows * kRank), plain_y(before), corrected_y(before);
  const auto run = [&](const LinearWeight& w, const float* from, float* to, bool accumulate) {
    LinearArgs args;
    args.x = from;
    args.x_stride = w.canonical.cols;
    args.m = kRows;
    args.w = &w;
    args.y = to;
    args.y_stride = w.canonical.rows;
    args.accumulate = accumulate;
    backend.run(args);
  };
  backend.run(norm);
  run(plain.weight, normed.data(), plain_y.data(), false);
  run(corrected.weight, normed.data(), corrected_y.data(), true);
  run(corrected.added->in, normed.data(), narrow.data(), false);
  run(corrected.added->out, narrow.data(), corrected_y.data(), true);
  EXPECT_EQ(y, plain_y);
  EXPECT_EQ(z, corrected_y);
}

}  // namespace
}  // namespace nibble
