// What runs in the next step: continuous batching over a pool of blocks, without a device.
//
// A sequence is its tokens, of which the first `computed` are in the cache. A step computes some
// more of each: the one new token of a running answer, or a chunk of a prompt. Running answers come
// first, so that long prompts do not hold them up; then prompts share what is left of the budget;
// then waiting sequences are admitted, in the order of priority and arrival, when the pool has room
// for all of their tokens. When a running sequence finds no block, the last one in that order loses
// its blocks and waits again. As much of it as a second pool has room for is kept there, and
// brought back when it is admitted; the rest is computed anew (or found again in the pool).
//
// A step can be planned while the one before runs: what that one will choose is expected, and
// stands in the sequence as a placeholder until it is known. Nothing of it is published before.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "runtime/block_pool.h"

namespace nibble {

struct SchedulerOptions {
  std::int64_t max_sequences = 64;  // that run at once
  std::int64_t max_rows = 1024;     // of a step
  bool prefix_caching = true;
};

using SequenceId = std::uint64_t;

// Tokens [begin, begin + rows) of a sequence are to be computed.
struct ScheduledRows {
  SequenceId id = 0;
  std::int64_t begin = 0;
  std::int64_t rows = 0;
  bool samples = false;      // they reach its end: the next token can be chosen
  std::int64_t guessed = 0;  // of the rows, the last ones are of guess(): the end lies before them
};

// What a block holds goes from the pool to the second one, or back. Moves are made in their order,
// before anything of the step is computed.
struct BlockMove {
  BlockId block = 0;  // of the pool
  BlockId kept = 0;   // of the second pool
  bool out = false;   // from the pool
};

struct SchedulerStats {
  std::int64_t preemptions = 0;
  std::int64_t kept_tokens = 0;     // of preempted sequences, moved to the second pool
  std::int64_t queried_tokens = 0;  // looked up in the pool on admission, and found
  std::int64_t found_tokens = 0;
};

// Not thread-safe. Ids must be those of sequences that were added and not removed.
class Scheduler {
 public:
  // The pools must outlive it. `keep`: the second pool, with blocks of the same size; null: none.
  Scheduler(const SchedulerOptions& options, BlockPool& pool, BlockPool* keep = nullptr)
      : options_(options), pool_(pool), keep_(keep) {}

  // A new sequence waits. Ids rise with arrival. `reusable`: its prefix may come from the pool. It
  // must fit into the pool alone: has_room().
  void add(SequenceId id, std::int32_t priority, std::vector<std::int32_t> tokens,
           bool reusable = true);
  // Whether so many tokens ever fit.
  bool has_room(std::int64_t tokens) const;
  // Ends a sequence, wherever it is.
  void remove(SequenceId id);

  // How a running answer may go on after its tokens: rows for it are planned in the next step if
  // there is room for them that nobody else needs.
  void suggest(SequenceId id, std::vector<std::int32_t> guess);

  // The next step; empty when there is nothing to do. Between plan() and computed() the sequences
  // must not change.
  std::vector<ScheduledRows> plan();
  // What must be moved for it, also when nothing runs.
  std::span<const BlockMove> moves() const { return moves_; }
  // The planned rows are in the cache. Guesses count when they are confirmed.
  void computed(std::span<const ScheduledRows> rows);
  // The token that follows, or the first of those that are expected. `guessed`: it is the next one
  // of the guess, and in the cache.
  void append(SequenceId id, std::int32_t token, bool guessed = false);

  // One more token will follow all that is there. Until append() says which it is, `placeholder`
  // stands for it, and rows for it can be planned. The sequence has no guess.
  void expect(SequenceId id, std::int32_t placeholder);
  std::int64_t expected(SequenceId id) const { return sequence(id).expected; }
  // Whether the next plan() preempts nobody, which it may not do while tokens are expected.
  bool fits_next_step() const;

  // With placeholders for those that are expected.
  std::span<const std::int32_t> tokens(SequenceId id) const { return sequence(id).tokens; }
  // Whether it runs and only its last token is not in the cache.
  bool is_answering(SequenceId id) const {
    const Sequence& one = sequence(id);
    return one.left() == 1 && running_.contains({one.priority, id});
  }
  // What was suggested for the step that is planned now.
  std::span<const std::int32_t> guess(SequenceId id) const { return sequence(id).guess; }
  std::span<const BlockId> blocks(SequenceId id) const { return sequence(id).blocks; }
  std::span<const BlockId> kept(SequenceId id) const { return sequence(id).kept; }
  // Tokens that were found in the pool when it was last admitted with nothing kept.
  std::int64_t found(SequenceId id) const { return sequence(id).found; }

  std::int64_t running() const { return std::ssize(running_); }
  std::int64_t waiting() const { return std::ssize(waiting_); }
  const SchedulerStats& stats() const { return stats_; }

 private:
  struct Sequence {
    std::int32_t priority = 0;
    bool reusable = true;
    std::vector<std::int32_t> tokens;
    std::vector<std::int32_t> guess;
    std::int64_t computed = 0;
    std::int64_t expected = 0;  // of the tokens, the last so many
    std::int64_t found = 0;
    std::vector<BlockId> blocks;
    std::vector<BlockId> kept;     // of the second pool, while it waits
    std::int64_t kept_tokens = 0;  // that they hold
    std::int64_t left() const { return std::ssize(tokens) - computed; }
  };
  struct Order {  // of priority, then arrival
    std::int32_t priority;
    SequenceId id;
    auto operator<=>(const Order&) const = default;
  };

  const Sequence& sequence(SequenceId id) const { return sequences_.at(id); }
  std::int64_t blocks_for(std::int64_t tokens) const;
  bool reserve(Order order, std::int64_t tokens);
  void settle(Sequence& sequence, std::int32_t token);
  void preempt(Order order);
  void keep(Sequence& sequence);
  void bring_back(Sequence& sequence);
  void drop_blocks(Sequence& sequence);
  void drop_kept(Sequence& sequence);
  bool admit(Order order);
  void publish_full_blocks(Sequence& sequence, std::int64_t before);
  void schedule(Order order, std::int64_t rows, std::vector<ScheduledRows>& plan);
  std::int64_t room_for_guess(Sequence& sequence, std::int64_t spare);

  SchedulerOptions options_;
  BlockPool& pool_;
  BlockPool* keep_;
  std::vector<BlockMove> moves_;  // of the step that was planned last
  std::map<SequenceId, Sequence> sequences_;
  std::set<Order> running_;
  std::set<Order> waiting_;
  std::int64_t budget_ = 0;  // rows that the step being planned can still take
  SchedulerStats stats_;
};

}  // namespace nibble
