#include "checkpoint/pack_quantized.h"

#include <numeric>

#include "support/test_data.h"

namespace nibble {
namespace {

using ::testing::ElementsAreArray;

Tensor words_tensor(const std::vector<std::uint32_t>& words, Shape shape) {
  Tensor tensor = Tensor::allocate(DType::kI32, std::move(shape));
  std::ranges::copy(words, tensor.mutable_data<std::uint32_t>());
  return tensor;
}

std::vector<std::uint32_t> words_of(const Tensor& tensor) {
  const auto* data = tensor.data<std::uint32_t>();
  return {data, data + tensor.elements()};
}

// The codes v_i = (5 i + 3) mod 2^bits of the published conformance vectors.
Tensor vector_codes(int bits) {
  Tensor codes = Tensor::allocate(DType::kU8, {32, 1});
  for (int i = 0; i < 32; ++i) {
    codes.mutable_data<std::uint8_t>()[i] = static_cast<std::uint8_t>((5 * i + 3) % (1 << bits));
  }
  return codes;
}

// Words computed apart from this code, in the order of the stream.
const std::vector<std::vector<std::uint32_t>> kDense = {
    {0x93939393, 0x93939393},
    {0x43c67543, 0x7543c675, 0xc67543c6},
    {0x61c72d83, 0xe94fa50b, 0x61c72d83, 0xe94fa50b},
    {0x79793503, 0xfd560b30, 0x77137249, 0x1bb45871, 0xf668f514},
    {0x1748d203, 0x5c2b9a17, 0x38913feb, 0x2789d613, 0x503bdb1b, 0x79950f28},
    {0x72434403, 0x2b4c84e1, 0x23f74d58, 0x6c539d26, 0xc7667c57, 0x41407bed, 0x3c64a0f1},
    {0x120d0803, 0x26211c17, 0x3a35302b, 0x4e49443f, 0x625d5853, 0x76716c67, 0x8a85807b,
     0x9e99948f},
};

TEST(PackQuantized, DenseStreamsFollowTheConformanceVectors) {
  for (int bits = 2; bits <= 8; ++bits) {
    SCOPED_TRACE(bits);
    const auto& expected = kDense[static_cast<std::size_t>(bits - 2)];
    const Tensor packed = pack_zeros(vector_codes(bits), bits);
    EXPECT_EQ(packed.shape(), (Shape{static_cast<std::int64_t>(expected.size()), 1}));
    EXPECT_THAT(words_of(packed), ElementsAreArray(expected));
    const Tensor back = unpack_zeros(packed, 32, bits, Packing::kDense);
    EXPECT_THAT(back.bytes(), ElementsAreArray(vector_codes(bits).bytes()));
  }
}

TEST(PackQuantized, PaddedWordsBecomeDenseOnes) {
  // 0, 1, ... 7 repeated in words of ten codes of three bits, the upper two bits unused.
  const std::uint32_t first = 0 | 1u << 3 | 2u << 6 | 3u << 9 | 4u << 12 | 5u << 15 | 6u << 18 |
                              7u << 21 | 0u << 24 | 1u << 27;
  const std::uint32_t second = 2u | 3u << 3;
  const Tensor padded = words_tensor({first, second}, {1, 2});
  // The same twelve codes as one stream of 36 bits.
  const std::uint64_t stream = first | std::uint64_t{second} << 30;
  EXPECT_THAT(words_of(to_dense_packing(padded, 12, 3)),
              ElementsAreArray(
                  {static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)}));
}

TEST(PackQuantized, ZerosArePackedAlongRowsOfEachGroup) {
  Tensor zeros = Tensor::allocate(DType::kU8, {3, 2});
  const std::uint8_t values[] = {1, 4, 2, 5, 3, 6};
  std::ranges::copy(values, zeros.mutable_data<std::uint8_t>());
  EXPECT_THAT(words_of(pack_zeros(zeros, 4)), ElementsAreArray({0x321u, 0x654u}));
}

TEST(PackQuantized, WidthsDecideThePacking) {
  EXPECT_EQ(packed_words(128, 3, Packing::kDense), 12);
  EXPECT_EQ(packed_words(128, 3, Packing::kPadded), 13);
  EXPECT_EQ(packed_words(33, 7, Packing::kDense), 8);
  EXPECT_EQ(packed_words(33, 7, Packing::kPadded), 9);
  const auto detect = [](std::int64_t count, int bits, std::int64_t words, Packing prefer) {
    return detect_packing(count, bits, words, prefer, "tensor 'x'");
  };
  EXPECT_EQ(detect(128, 3, 12, Packing::kPadded), Packing::kDense);
  EXPECT_EQ(detect(128, 3, 13, Packing::kDense), Packing::kPadded);
  EXPECT_EQ(detect(20, 3, 2, Packing::kPadded), Packing::kPadded);  // both give two words
  EXPECT_EQ(detect(20, 3, 2, Packing::kDense), Packing::kDense);
  EXPECT_EQ(detect(20, 4, 3, Packing::kPadded), Packing::kDense);  // the two are one
  EXPECT_ERROR(detect(128, 3, 14, Packing::kDense), ErrorKind::kCorrupt, "tensor 'x'");
  EXPECT_ERROR(detect(INT64_MAX, 8, 4, Packing::kDense), ErrorKind::kCorrupt, "cannot hold");
}

}  // namespace
}  // namespace nibble
