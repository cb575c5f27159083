#include "tensor/tensor.h"

#include <limits>

#include "support/test_data.h"

namespace nibble {
namespace {

TEST(TensorTest, ElementCountRefusesOverflowAndNegatives) {
  EXPECT_EQ(element_count({}), 1);
  EXPECT_EQ(element_count({3, 0, 5}), 0);
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max() / 2;
  EXPECT_ERROR(element_count({kHuge, 3}), ErrorKind::kCorrupt, "no representable number");
  EXPECT_ERROR(element_count({2, -1}), ErrorKind::kCorrupt, "[2, -1]");
}

TEST(TensorTest, AllocationFailureIsAMemoryError) {
  EXPECT_ERROR(Tensor::allocate(DType::kF32, {std::int64_t{1} << 61}), ErrorKind::kMemory,
               "memory");
  EXPECT_ERROR(Tensor::allocate(DType::kU8, {std::int64_t{1} << 60}), ErrorKind::kMemory,
               "allocate");
}

TEST(TensorTest, RowsShareBytes) {
  Tensor tensor = Tensor::allocate(DType::kF32, {4, 3});
  for (int i = 0; i < 12; ++i) tensor.mutable_data<float>()[i] = static_cast<float>(i);
  const Tensor middle = tensor.rows(1, 3);
  EXPECT_EQ(middle.shape(), (Shape{2, 3}));
  EXPECT_EQ(middle.data<float>()[0], 3.0f);
  tensor.mutable_data<float>()[3] = 42;
  EXPECT_EQ(middle.data<float>()[0], 42.0f);
  EXPECT_EQ(tensor.rows(4, 4).elements(), 0);
}

TEST(TensorTest, ConvertsToAndFromFloatFromUnalignedBytes) {
  const float values[] = {1.0f, -2.5f, 0.0f, 65504.0f};
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const Tensor tensor = from_float(values, dtype, {4});
    std::vector<std::byte> shifted(tensor.byte_size() + 1);
    std::copy(tensor.bytes().begin(), tensor.bytes().end(), shifted.begin() + 1);
    const Tensor view = Tensor::view(dtype, {4}, std::span(shifted).subspan(1), nullptr);
    const Tensor back = to_float(view);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(back.data<float>()[i], values[i]) << to_string(dtype);
  }
  EXPECT_ERROR(to_float(Tensor::allocate(DType::kI32, {1})), ErrorKind::kUnsupported, "I32");
}

TEST(DTypeTest, NamesRoundTrip) {
  for (int i = 0; i <= static_cast<int>(DType::kF8E8M0); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(to_string(dtype)), dtype);
    EXPECT_GT(dtype_size(dtype), 0u);
  }
  EXPECT_FALSE(parse_dtype("F33").has_value());
}

TEST(Tensor, BytesOnADeviceAreNotForTheHost) {
  const auto owner = std::make_shared<int>(0);
  float value = 0;  // stands for memory of a card
  Tensor tensor = Tensor::on_device(DType::kF32, {1}, &value, owner);
  EXPECT_EQ(tensor.place(), Place::kDevice);
  EXPECT_EQ(tensor.address(), &value);
  EXPECT_EQ(tensor.rows(0, 1).place(), Place::kDevice);
  EXPECT_ERROR(tensor.bytes(), ErrorKind::kInternal, "place_");
}

}  // namespace
}  // namespace nibble
