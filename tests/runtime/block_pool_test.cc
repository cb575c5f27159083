#include "runtime/block_pool.h"

#include <gmock/gmock.h>

#include <numeric>

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::int32_t> tokens_from(std::int32_t first, std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// Takes blocks for tokens, and publishes the full ones.
std::vector<BlockId> fill(BlockPool& pool, const std::vector<std::int32_t>& tokens) {
  std::vector<BlockId> blocks;
  const auto rows = static_cast<std::size_t>(pool.block_rows());
  for (std::size_t at = 0; at < tokens.size(); at += rows) {
    const BlockId parent = blocks.empty() ? BlockPool::kNone : blocks.back();
    blocks.push_back(pool.take());
    if (at + rows <= tokens.size()) {
      pool.publish(blocks.back(), parent, std::span(tokens).subspan(at, rows));
    }
  }
  return blocks;
}

TEST(BlockPoolTest, FindsTheLongestSharedBeginning) {
  BlockPool pool(8, 4);
  const std::vector<BlockId> first = fill(pool, tokens_from(0, 12));
  std::vector<std::int32_t> other = tokens_from(0, 8);
  other.push_back(99);
  const std::vector<BlockId> found = pool.find(other);
  EXPECT_THAT(found, ElementsAre(first[0], first[1]));
  EXPECT_THAT(pool.find(tokens_from(4, 8)), IsEmpty());  // the same block elsewhere is another one
  EXPECT_TRUE(pool.is_sound({first, found}));
  EXPECT_FALSE(pool.is_sound({first}));
}

TEST(BlockPoolTest, KeepsWhatWasReleasedUntilItsMemoryIsNeeded) {
  BlockPool pool(4, 2);
  const std::vector<BlockId> old = fill(pool, tokens_from(0, 4));
  const std::vector<BlockId> young = fill(pool, tokens_from(50, 4));
  pool.release(old);
  pool.release(young);
  EXPECT_EQ(pool.available(), 4);
  const BlockId taken = pool.take();
  EXPECT_EQ(taken, old[1]);  // the last of what was released first: its beginning is still of use
  const std::vector<BlockId> found = pool.find(tokens_from(0, 4));
  EXPECT_THAT(found, ElementsAre(old[0]));
  const std::vector<BlockId> whole = pool.find(tokens_from(50, 4));
  EXPECT_EQ(whole, young);
  EXPECT_EQ(pool.available(), 0);
  EXPECT_TRUE(pool.is_sound({{taken}, found, whole}));
}

TEST(BlockPoolTest, PublishesAContentOnce) {
  BlockPool pool(6, 2);
  const std::vector<BlockId> one = fill(pool, tokens_from(0, 4));
  const std::vector<BlockId> two = fill(pool, tokens_from(0, 4));
  EXPECT_TRUE(pool.is_sound({one, two}));
  pool.release(two);  // was never published: free at once
  pool.release(one);
  EXPECT_EQ(pool.find(tokens_from(0, 4)), one);
  EXPECT_TRUE(pool.is_sound({one}));
}

}  // namespace
}  // namespace nibble
