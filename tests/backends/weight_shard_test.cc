// A rank's part of a weight, cut out of the packed planes, against the packed planes of that part.
#include <gmock/gmock.h>

#include <cstring>
#include <random>

#include "backends/cuda/byte_weight.h"
#include "backends/cuda/fragment_weight.h"
#include "formats/registry.h"

namespace nibble::cuda {
namespace {

constexpr std::int64_t kRows = 512;   // 8 ranks of a block of rows
constexpr std::int64_t kCols = 1024;  // 8 ranks of the largest group

// What ranks share out: outputs (column parallel: rows of the weight) or inputs (row parallel).
enum class Axis { kOutputs, kInputs };

struct Rank {
  Axis axis;
  std::int64_t ranks;
  std::int64_t rank;
};

std::vector<Rank> every_rank() {
  std::vector<Rank> all;
  for (const Axis axis : {Axis::kOutputs, Axis::kInputs}) {
    for (const std::int64_t ranks : {2, 4, 8}) {
      for (std::int64_t rank = 0; rank < ranks; ++rank) all.push_back({axis, ranks, rank});
    }
  }
  return all;
}

// The rank's share of one dimension of a plane: a range of the first is contiguous, a range of the
// second one run of bytes for each index of the first. A dimension of 1 (one scale a row, say)
// belongs to every rank.
Tensor share(const Tensor& plane, const Rank& rank) {
  if (plane.empty()) return plane;
  const std::size_t dim = rank.axis == Axis::kOutputs ? 0 : 1;
  if (dim >= plane.shape().size() || plane.dim(static_cast<int>(dim)) == 1) return plane;
  Shape shape = plane.shape();
  const std::int64_t outer = dim == 0 ? 1 : shape[0];
  shape[dim] /= rank.ranks;
  Tensor part = Tensor::allocate(plane.dtype(), shape);
  const std::size_t run = part.byte_size() / static_cast<std::size_t>(outer);
  const std::size_t pitch = plane.byte_size() / static_cast<std::size_t>(outer);
  for (std::size_t at = 0; at < static_cast<std::size_t>(outer); ++at) {
    std::memcpy(static_cast<std::byte*>(part.address()) + at * run,
                plane.bytes().data() + at * pitch + static_cast<std::size_t>(rank.rank) * run, run);
  }
  return part;
}

// The same of a weight in canonical planes, all of which are [rows, ...].
QuantTensor share(const QuantTensor& weight, const Rank& rank) {
  QuantTensor part{weight.format, weight.rows, weight.cols, {}};
  (rank.axis == Axis::kOutputs ? part.rows : part.cols) /= rank.ranks;
  for (const Tensor& plane : weight.planes) part.planes.push_back(share(plane, rank));
  return part;
}

QuantTensor normal_weight(const std::string& format) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.1f, 1.0f);
  std::vector<float> values(static_cast<std::size_t>(kRows * kCols));
  for (float& value : values) value = normal(random);
  return parse_weight_format(format)->encode(values.data(), kRows, kCols);
}

void expect_same(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.dtype(), b.dtype());
  EXPECT_EQ(a.shape(), b.shape());
  ASSERT_EQ(a.byte_size(), b.byte_size());
  const auto bytes = [](const Tensor& tensor) {
    const std::span<const std::byte> all = tensor.bytes();
    return std::vector<std::byte>(all.begin(), all.end());
  };
  EXPECT_TRUE(bytes(a) == bytes(b));
}

class FragmentShardTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FragmentShardTest, IsTheRepackedShard) {
  const QuantTensor whole = normal_weight(GetParam());
  ThreadPool pool(2);
  const FragmentWeight packed = pack_fragments(whole, pool);
  for (const Rank& rank : every_rank()) {
    SCOPED_TRACE(::testing::Message() << (rank.axis == Axis::kOutputs ? "rows " : "columns ")
                                      << rank.rank << " of " << rank.ranks);
    const FragmentWeight part = pack_fragments(share(whole, rank), pool);
    expect_same(share(packed.codes, rank), part.codes);
    expect_same(share(packed.scales, rank), part.scales);
    expect_same(share(packed.zeros, rank), part.zeros);
    EXPECT_EQ(part.bits, packed.bits);
    const bool one_group = packed.groups == 1;
    EXPECT_EQ(part.group, one_group ? part.cols : packed.group);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, FragmentShardTest,
                         ::testing::Values("int4_g32_asym", "int4_g64_sym", "int4_g128_asym",
                                           "int4_g128_sym_sbf16", "int4_channel_asym",
                                           "int8_g128_asym", "int8_g32_sym", "int8_channel_sym"),
                         [](const auto& test) { return std::string(test.param); });

TEST(ByteShardTest, IsTheRepackedShard) {
  ThreadPool pool(2);
  for (const auto& [format, type] : {std::pair{"int8_channel_sym", ByteType::kInt8},
                                     std::pair{"fp8_e4m3_channel", ByteType::kFp8}}) {
    const QuantTensor whole = normal_weight(format);
    const ByteWeight packed = pack_bytes(whole, type, pool);
    for (const Rank& rank : every_rank()) {
      SCOPED_TRACE(::testing::Message() << format << " " << rank.rank << " of " << rank.ranks);
      const ByteWeight part = pack_bytes(share(whole, rank), type, pool);
      expect_same(share(packed.codes, rank), part.codes);
      expect_same(share(packed.scales, rank), part.scales);
    }
  }
}

}  // namespace
}  // namespace nibble::cuda
