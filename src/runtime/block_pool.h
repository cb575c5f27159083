// Who holds which block of a cache of keys and values, and what full blocks contain: bookkeeping
// without a device.
//
// Full blocks that were published form a tree: a block stands under the block before it, by its
// tokens. So sequences that begin alike share blocks, compared by the tokens themselves, and blocks
// that nobody holds stay findable until their memory is needed: then the one released longest ago
// goes first, leaves before what they stand under.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace nibble {

using BlockId = std::int32_t;

// Not thread-safe.
class BlockPool {
 public:
  BlockPool(std::int64_t blocks, std::int64_t block_rows);

  std::int64_t blocks() const { return std::ssize(blocks_); }
  std::int64_t block_rows() const { return block_rows_; }
  // Blocks that take() can give.
  std::int64_t available() const { return available_; }

  // A block for new tokens, held once; available() > 0.
  BlockId take();
  // Gives up holds, the last block first: a sequence gives up all of its blocks at once.
  void release(std::span<const BlockId> blocks);

  // The longest chain of published blocks that `tokens` begin with; each is held once more.
  std::vector<BlockId> find(std::span<const std::int32_t> tokens);
  // A held block is full of these tokens and comes after `parent` (kNone: it is the first). Nothing
  // happens when the parent is not published, or another block of this content is.
  void publish(BlockId block, BlockId parent, std::span<const std::int32_t> tokens);

  // Whether everything fits together; for tests. Every hold is in one of `holders`, each the blocks
  // of one sequence.
  bool is_sound(const std::vector<std::vector<BlockId>>& holders) const;

  static constexpr BlockId kNone = -1;

 private:
  using Children = std::map<std::vector<std::int32_t>, BlockId>;
  struct Block {
    std::int64_t holds = 0;
    bool published = false;
    BlockId parent = kNone;
    Children::iterator place;  // among the parent's children; when published
    Children children;
    std::uint64_t released = 0;  // when the last hold went
  };

  Block& at(BlockId block) { return blocks_[static_cast<std::size_t>(block)]; }
  const Block& at(BlockId block) const { return blocks_[static_cast<std::size_t>(block)]; }
  Children& children_of(BlockId block) { return block == kNone ? roots_ : at(block).children; }
  bool is_leaf_unheld(const Block& block) const {
    return block.published && block.holds == 0 && block.children.empty();
  }
  void hold(BlockId block);
  void evict(BlockId block);

  std::int64_t block_rows_;
  std::vector<Block> blocks_;
  std::vector<BlockId> free_;
  Children roots_;
  std::set<std::pair<std::uint64_t, BlockId>> evictable_;  // unheld leaves by time of release
  std::int64_t available_;
  std::uint64_t clock_ = 0;
};

}  // namespace nibble
