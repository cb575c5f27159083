// Blocks of ggml under every implementation of linear: columns of the identity give back the
// weights, which are known from ggml's own decoders (tests/golden/formats/blocks.json).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/half.h"
#include "base/json.h"
#include "contract/op_support.h"
#include "formats/registry.h"
#include "support/hex.h"

namespace nibble::test {
namespace {

// Rows of the two golden blocks of a type in different orders, at an odd address.
QuantTensor golden_weight(const std::vector<std::uint8_t>& two, BlockType type) {
  const auto size = static_cast<std::size_t>(layout_of(type).bytes);
  const std::vector<std::uint8_t> first(two.begin(), two.begin() + layout_of(type).bytes);
  const std::vector<std::uint8_t> second(two.begin() + layout_of(type).bytes, two.end());
  constexpr std::int64_t kRows = 5, kBlocks = 3;
  const std::size_t bytes = kRows * kBlocks * size;
  std::shared_ptr<std::byte[]> memory(new std::byte[bytes + 1]);
  for (std::size_t i = 0; i < kRows * kBlocks; ++i) {
    const auto& block = i % 4 == 1 || i % 4 == 2 ? second : first;
    std::memcpy(memory.get() + 1 + i * size, block.data(), size);
  }
  QuantTensor weight{block_format(type), kRows, kBlocks * layout_of(type).elements, {}};
  weight.planes.push_back(Tensor::view(DType::kU8,
                                       {kRows, static_cast<std::int64_t>(kBlocks * size)},
                                       {memory.get() + 1, bytes}, memory));
  return weight;
}

std::vector<QuantTensor> golden_weights() {
  const Json golden = read_json_file((source_dir() / "tests/golden/formats/blocks.json").string());
  std::vector<QuantTensor> weights;
  for (const auto& [name, row] : golden.items()) {
    const bool shared = name == "mxfp4" || name == "nvfp4";  // with a format of the grammar
    const auto type = block_type_named(shared ? name + "_gguf" : name);
    weights.push_back(golden_weight(from_hex(row.at("hex").get<std::string>()), type.value()));
  }
  return weights;
}

// y of `m` rows of the identity at a time, [cols, rows]; empty when the implementation takes none.
std::vector<float> columns_of(Backend& backend, const LinearWeight& weight, std::int64_t m) {
  const std::int64_t rows = weight.canonical.rows, cols = weight.canonical.cols;
  std::vector<float> y(static_cast<std::size_t>(rows * cols));
  for (std::int64_t begin = 0; begin < cols; begin += m) {
    const std::int64_t count = std::min(m, cols - begin);
    std::vector<float> x(static_cast<std::size_t>(count * cols));
    for (std::int64_t i = 0; i < count; ++i) x[static_cast<std::size_t>(i * cols + begin + i)] = 1;
    LinearArgs args;
    args.x = x.data();
    args.x_stride = cols;
    args.m = count;
    args.w = &weight;
    args.y = y.data() + begin * rows;
    args.y_stride = rows;
    if (!try_run(backend, args)) return {};
  }
  return y;
}

class BlocksContract : public ::testing::TestWithParam<ImplRow> {};

TEST_P(BlocksContract, ColumnsOfTheIdentityGiveTheWeights) {
  if (GetParam().arithmetic == Arithmetic::kInt8) return;  // rounds the identity
  const auto backend = forced_backend("linear", GetParam().name, 2);
  const bool narrow = GetParam().arithmetic == Arithmetic::kBf16;
  for (const QuantTensor& golden : golden_weights()) {
    std::vector<float> w(static_cast<std::size_t>(golden.rows * golden.cols));
    decode_all(golden, w.data());
    if (narrow) {
      for (float& v : w) v = to_float(to_bf16(v));
    }
    // Scaled sums of whole numbers less minimums are rounded apart, to a few units of the largest.
    const auto largest = std::ranges::max(w, {}, [](float v) { return std::abs(v); });
    const float error = GetParam().arithmetic == Arithmetic::kBf16Exact
                            ? 8 * std::numeric_limits<float>::epsilon() * std::abs(largest)
                            : 0;
    const LinearWeight weight = backend->prepare(golden);
    for (const std::int64_t m : {std::int64_t{1}, std::int64_t{3}, std::int64_t{8}, golden.cols}) {
      const std::vector<float> y = columns_of(*backend, weight, m);
      if (y.empty()) continue;
      std::int64_t wrong = 0;
      for (std::int64_t i = 0; i < golden.rows * golden.cols; ++i) {
        const std::int64_t row = i / golden.cols, col = i % golden.cols;
        const float got = y[static_cast<std::size_t>(col * golden.rows + row)];
        wrong += !(std::abs(got - w[static_cast<std::size_t>(i)]) <= error);
      }
      EXPECT_EQ(wrong, 0) << golden.format->name() << ", m " << m;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Impls, BlocksContract, ::testing::ValuesIn(usable_rows("linear")),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace nibble::test
