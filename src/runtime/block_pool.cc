#include "runtime/block_pool.h"

#include <numeric>

#include "base/error.h"

namespace nibble {

BlockPool::BlockPool(std::int64_t blocks, std::int64_t block_rows)
    : block_rows_(block_rows),
      blocks_(static_cast<std::size_t>(blocks)),
      free_(static_cast<std::size_t>(blocks)),
      available_(blocks) {
  NIBBLE_CHECK(block_rows > 0);
  std::iota(free_.rbegin(), free_.rend(), 0);
}

void BlockPool::hold(BlockId id) {
  Block& block = at(id);
  if (block.holds++ > 0) return;
  evictable_.erase({block.released, id});
  --available_;
}

BlockId BlockPool::take() {
  NIBBLE_CHECK(available_ > 0);
  if (free_.empty()) evict(evictable_.begin()->second);
  const BlockId id = free_.back();
  free_.pop_back();
  hold(id);
  return id;
}

void BlockPool::release(std::span<const BlockId> blocks) {
  for (auto it = blocks.rbegin(); it != blocks.rend(); ++it) {
    const BlockId id = *it;
    Block& block = at(id);
    NIBBLE_CHECK(block.holds > 0);
    if (--block.holds > 0) continue;
    ++available_;
    block.released = ++clock_;
    if (!block.published) {
      free_.push_back(id);
    } else if (is_leaf_unheld(block)) {
      evictable_.insert({block.released, id});
    }
  }
}

// Makes a published block that nobody holds and that nothing stands under a free one.
void BlockPool::evict(BlockId id) {
  Block& block = at(id);
  evictable_.erase({block.released, id});
  children_of(block.parent).erase(block.place);
  if (block.parent != kNone && is_leaf_unheld(at(block.parent))) {
    evictable_.insert({at(block.parent).released, block.parent});
  }
  block.published = false;
  block.parent = kNone;
  free_.push_back(id);
}

std::vector<BlockId> BlockPool::find(std::span<const std::int32_t> tokens) {
  std::vector<BlockId> found;
  BlockId parent = kNone;
  const auto rows = static_cast<std::size_t>(block_rows_);
  while (tokens.size() >= rows) {
    const Children& children = children_of(parent);
    const auto next = children.find({tokens.begin(), tokens.begin() + rows});
    if (next == children.end()) break;
    parent = next->second;
    hold(parent);
    found.push_back(parent);
    tokens = tokens.subspan(rows);
  }
  return found;
}

void BlockPool::publish(BlockId id, BlockId parent, std::span<const std::int32_t> tokens) {
  NIBBLE_CHECK(std::ssize(tokens) == block_rows_ && at(id).holds > 0);
  Block& block = at(id);
  if (block.published || (parent != kNone && !at(parent).published)) return;
  const auto [place, added] =
      children_of(parent).emplace(std::vector<std::int32_t>(tokens.begin(), tokens.end()), id);
  if (!added) return;
  block.published = true;
  block.parent = parent;
  block.place = place;
}

bool BlockPool::is_sound(const std::vector<std::vector<BlockId>>& holders) const {
  std::vector<std::int64_t> holds(blocks_.size());
  for (const auto& held : holders) {
    for (const BlockId id : held) ++holds[static_cast<std::size_t>(id)];
  }
  std::vector<int> is_free(blocks_.size());
  for (const BlockId id : free_) ++is_free[static_cast<std::size_t>(id)];
  std::int64_t unheld = 0;
  std::int64_t evictable = 0;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    if (block.holds != holds[i]) return false;
    unheld += block.holds == 0 ? 1 : 0;
    if (is_free[i] != (block.holds == 0 && !block.published ? 1 : 0)) return false;
    const auto id = static_cast<BlockId>(i);
    const bool listed = evictable_.contains({block.released, id});
    if (listed != is_leaf_unheld(block)) return false;
    evictable += listed ? 1 : 0;
    if (!block.published && !block.children.empty()) return false;
    for (const auto& [tokens, child] : block.children) {
      if (at(child).parent != id || !at(child).published) return false;
      if (at(child).holds > block.holds) return false;  // who holds a block holds those before it
    }
  }
  return unheld == available_ && evictable == std::ssize(evictable_);
}

}  // namespace nibble
