#include "tensor/buffer_pool.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

constexpr std::size_t kMaxFreeBytes = std::size_t{1} << 20;

BufferPool host_pool() {
  return {[](std::int64_t count) { return Tensor::allocate(DType::kF32, {count}); }, kMaxFreeBytes};
}

TEST(BufferPool, GivesBackTheClosestBufferThatFits) {
  BufferPool pool = host_pool();
  Tensor small = pool.take(100);
  Tensor large = pool.take(150);
  const float* small_data = small.data<float>();
  const float* large_data = large.data<float>();
  pool.give(std::move(large));
  pool.give(std::move(small));
  const Tensor again = pool.take(90);
  EXPECT_EQ(again.data<float>(), small_data);
  EXPECT_GE(again.elements(), 90);
  EXPECT_EQ(pool.take(90).data<float>(), large_data);
}

TEST(BufferPool, ASmallUseDoesNotTakeALargeBuffer) {
  BufferPool pool = host_pool();
  pool.give(pool.take(1000));
  EXPECT_EQ(pool.take(10).elements(), 10);
  EXPECT_EQ(pool.free_bytes(), 4000u);
}

TEST(BufferPool, TwoUsesAtOnceAreTwoBuffers) {
  BufferPool pool = host_pool();
  pool.give(pool.take(64));
  Tensor one = pool.take(64);
  Tensor two = pool.take(64);
  EXPECT_NE(one.data<float>(), two.data<float>());
}

TEST(BufferPool, HoldsNoMoreThanItsLimit) {
  BufferPool pool = host_pool();
  const auto count = static_cast<std::int64_t>(kMaxFreeBytes / 8);
  Tensor first = pool.take(count);
  Tensor second = pool.take(count);
  Tensor third = pool.take(count / 2 + 1);
  const float* newest = third.data<float>();
  pool.give(std::move(first));
  pool.give(std::move(second));
  pool.give(std::move(third));
  EXPECT_LE(pool.free_bytes(), kMaxFreeBytes);
  EXPECT_EQ(pool.take(count / 2 + 1).data<float>(), newest);
}

}  // namespace
}  // namespace nibble
