// Stored weights under every implementation of linear: columns of the identity give them back.
// Blocks of ggml are known from its own decoders (tests/golden/formats/blocks.json), tables have
// every code and every scale of a byte.
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

// All codes under all scales of a byte that encoders give, the least and the largest too.
QuantTensor every_code_and_scale(const std::string& name, int first_scale, int last_scale) {
  constexpr std::int64_t kRows = 40, kCols = 256;
  QuantTensor weight = parse_model_format(name).weights->encode(
      std::vector<float>(kRows * kCols, 1.0f).data(), kRows, kCols);
  const auto fill = [](Tensor& plane, int first, int last) {
    Tensor filled = Tensor::allocate(plane.dtype(), plane.shape());
    auto* const bytes = const_cast<std::byte*>(filled.bytes().data());
    for (std::size_t i = 0; i < filled.bytes().size(); ++i) {
      bytes[i] = static_cast<std::byte>(first + static_cast<int>(i * 11) % (last - first + 1));
    }
    plane = filled;
  };
  fill(weight.planes[0], 0, 255);
  if (last_scale > 0) fill(weight.planes[1], first_scale, last_scale);
  return weight;
}

std::vector<QuantTensor> table_weights() {
  std::vector<QuantTensor> weights = {every_code_and_scale("fp4_e2m1_g32_se8m0", 0, 250),
                                      every_code_and_scale("fp4_e2m1_g16_se4m3", 1, 126),
                                      every_code_and_scale("nf4_g64", 0, 0),
                                      every_code_and_scale("bnb4_g64", 0, 0),
                                      every_code_and_scale("fp8_e3m4_channel", 0, 0),
                                      every_code_and_scale("fp8_e4m3_channel", 0, 0)};
  // The last one holds the codes of NaN; here without.
  weights.push_back(weights.back());
  Tensor codes = Tensor::allocate(DType::kI32, weights.back().planes[0].shape());
  auto* const to = const_cast<std::byte*>(codes.bytes().data());
  std::ranges::transform(weights.back().planes[0].bytes(), to, [](std::byte b) {
    return (b & std::byte{127}) == std::byte{127} ? std::byte{1} : b;
  });
  weights.back().planes[0] = codes;
  return weights;
}

// Whether y, columns of the identity, are the weights; a row with a NaN has it everywhere, as 0
// times NaN is added to all of it.
std::int64_t count_wrong(const QuantTensor& weight, const std::vector<float>& w,
                         const std::vector<float>& y, float error) {
  std::int64_t wrong = 0;
  for (std::int64_t row = 0; row < weight.rows; ++row) {
    const float* const from = w.data() + row * weight.cols;
    const bool nan = std::any_of(from, from + weight.cols, [](float v) { return std::isnan(v); });
    for (std::int64_t col = 0; col < weight.cols; ++col) {
      const float got = y[static_cast<std::size_t>(col * weight.rows + row)];
      wrong += nan ? !std::isnan(got) : !(std::abs(got - from[col]) <= error);
    }
  }
  return wrong;
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
  const Arithmetic arithmetic = GetParam().arithmetic;
  if (arithmetic == Arithmetic::kInt8) return;  // rounds the identity
  const auto backend = forced_backend("linear", GetParam().name, 2);
  const bool narrow = arithmetic == Arithmetic::kBf16;
  std::vector<QuantTensor> weights = golden_weights();
  if (arithmetic == Arithmetic::kFloat32)
    std::ranges::copy(table_weights(), back_inserter(weights));
  for (const QuantTensor& golden : weights) {
    std::vector<float> w(static_cast<std::size_t>(golden.rows * golden.cols));
    decode_all(golden, w.data());
    if (narrow) {
      for (float& v : w) v = to_float(to_bf16(v));
    }
    // Scaled sums of whole numbers less minimums are rounded apart, to a few units of the largest.
    const auto largest = std::ranges::max(w, {}, [](float v) { return std::abs(v); });
    const bool apart =
        arithmetic == Arithmetic::kBf16Exact || arithmetic == Arithmetic::kSignedInt8;
    const float error = apart ? 8 * std::numeric_limits<float>::epsilon() * std::abs(largest) : 0;
    const LinearWeight weight = backend->prepare(golden);
    for (const std::int64_t m : {std::int64_t{1}, std::int64_t{3}, std::int64_t{8}, golden.cols}) {
      const std::vector<float> y = columns_of(*backend, weight, m);
      if (y.empty()) continue;
      EXPECT_EQ(count_wrong(golden, w, y, error), 0) << golden.format->name() << ", m " << m;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Impls, BlocksContract, ::testing::ValuesIn(usable_rows("linear")),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace nibble::test
