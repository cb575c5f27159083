#include "runtime/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace nibble {

std::int64_t Scheduler::blocks_for(std::int64_t tokens) const {
  return (tokens + pool_.block_rows() - 1) / pool_.block_rows();
}

bool Scheduler::has_room(std::int64_t tokens) const { return blocks_for(tokens) <= pool_.blocks(); }

void Scheduler::add(SequenceId id, std::int32_t priority, std::vector<std::int32_t> tokens,
                    bool reusable) {
  NIBBLE_CHECK(!tokens.empty() && has_room(std::ssize(tokens)));
  Sequence& sequence = sequences_[id];
  sequence.priority = priority;
  sequence.reusable = reusable && options_.prefix_caching;
  sequence.tokens = std::move(tokens);
  waiting_.insert({priority, id});
}

void Scheduler::remove(SequenceId id) {
  Sequence& sequence = sequences_.at(id);
  drop_blocks(sequence);
  drop_kept(sequence);
  running_.erase({sequence.priority, id});
  waiting_.erase({sequence.priority, id});
  sequences_.erase(id);
}

void Scheduler::append(SequenceId id, std::int32_t token, bool guessed) {
  Sequence& sequence = sequences_.at(id);
  if (sequence.expected > 0) return settle(sequence, token);
  sequence.tokens.push_back(token);
  if (!guessed) {
    sequence.guess.clear();  // it was of what would stand here
    return;
  }
  ++sequence.computed;
  if (sequence.reusable) publish_full_blocks(sequence, sequence.computed - 1);
}

// The first of the expected tokens, which may be in the cache already.
void Scheduler::settle(Sequence& sequence, std::int32_t token) {
  const std::int64_t at = std::ssize(sequence.tokens) - sequence.expected--;
  sequence.tokens[static_cast<std::size_t>(at)] = token;
  if (sequence.reusable) publish_full_blocks(sequence, at);
}

void Scheduler::expect(SequenceId id, std::int32_t placeholder) {
  Sequence& sequence = sequences_.at(id);
  NIBBLE_CHECK(placeholder < 0 && sequence.guess.empty());
  sequence.tokens.push_back(placeholder);
  ++sequence.expected;
}

bool Scheduler::fits_next_step() const {
  std::int64_t more = 0;
  for (const Order& order : running_) {
    const Sequence& one = sequence(order.id);
    more += std::max<std::int64_t>(blocks_for(std::ssize(one.tokens)) - std::ssize(one.blocks), 0);
  }
  return more <= pool_.available();
}

void Scheduler::suggest(SequenceId id, std::vector<std::int32_t> guess) {
  sequences_.at(id).guess = std::move(guess);
}

void Scheduler::drop_blocks(Sequence& sequence) {
  pool_.release(sequence.blocks);
  sequence.blocks.clear();
  sequence.guess.clear();
  sequence.computed = 0;
}

void Scheduler::drop_kept(Sequence& sequence) {
  if (sequence.kept.empty()) return;
  keep_->release(sequence.kept);
  sequence.kept.clear();
  sequence.kept_tokens = 0;
}

// Copies the beginning of what is computed, as far as there is room for it.
void Scheduler::keep(Sequence& sequence) {
  if (keep_ == nullptr) return;
  const std::int64_t count = std::min(blocks_for(sequence.computed), keep_->available());
  for (std::int64_t i = 0; i < count; ++i) {
    sequence.kept.push_back(keep_->take());
    moves_.push_back({sequence.blocks[static_cast<std::size_t>(i)], sequence.kept.back(), true});
  }
  sequence.kept_tokens = std::min(sequence.computed, count * pool_.block_rows());
  stats_.kept_tokens += sequence.kept_tokens;
}

// Copies back what was kept into the blocks behind those that were found.
void Scheduler::bring_back(Sequence& sequence) {
  const std::int64_t found = sequence.computed;
  for (auto i = static_cast<std::size_t>(found / pool_.block_rows()); i < sequence.kept.size();
       ++i) {
    moves_.push_back({sequence.blocks[i], sequence.kept[i], false});
  }
  sequence.computed = std::max(found, sequence.kept_tokens);
  if (sequence.reusable) publish_full_blocks(sequence, found);
  drop_kept(sequence);
}

void Scheduler::preempt(Order order) {
  Sequence& sequence = sequences_.at(order.id);
  NIBBLE_CHECK(sequence.expected == 0);
  keep(sequence);
  drop_blocks(sequence);
  running_.erase(order);
  waiting_.insert(order);
  ++stats_.preemptions;
}

// Blocks for the first `tokens` tokens of a running sequence, taken from those behind it if need
// be. False when it had to give up its own.
bool Scheduler::reserve(Order order, std::int64_t tokens) {
  Sequence& sequence = sequences_.at(order.id);
  while (std::ssize(sequence.blocks) < blocks_for(tokens)) {
    if (pool_.available() > 0) {
      sequence.blocks.push_back(pool_.take());
      continue;
    }
    const Order last = *running_.rbegin();
    preempt(last);
    if (last == order) return false;
  }
  return true;
}

void Scheduler::schedule(Order order, std::int64_t rows, std::vector<ScheduledRows>& plan) {
  const Sequence& sequence = sequences_.at(order.id);
  const std::int64_t guessed = std::max<std::int64_t>(rows - sequence.left(), 0);
  plan.push_back({order.id, sequence.computed, rows, rows >= sequence.left(), guessed});
  budget_ -= rows;
}

// Takes a waiting sequence in when all of its tokens find room.
bool Scheduler::admit(Order order) {
  Sequence& sequence = sequences_.at(order.id);
  std::vector<BlockId> found;
  if (sequence.reusable) {
    // The last token is computed in any case: its logits are wanted.
    found = pool_.find(std::span(sequence.tokens).first(sequence.tokens.size() - 1));
  }
  const std::int64_t more = blocks_for(std::ssize(sequence.tokens)) - std::ssize(found);
  if (more > pool_.available()) {
    pool_.release(found);
    return false;
  }
  sequence.blocks = std::move(found);
  sequence.computed = std::ssize(sequence.blocks) * pool_.block_rows();
  for (std::int64_t i = 0; i < more; ++i) sequence.blocks.push_back(pool_.take());
  if (sequence.kept.empty()) {
    sequence.found = sequence.computed;
    if (sequence.reusable) stats_.queried_tokens += std::ssize(sequence.tokens);
    stats_.found_tokens += sequence.found;
  } else {
    bring_back(sequence);
  }
  waiting_.erase(order);
  running_.insert(order);
  return true;
}

// Rows for the guess behind the sequence's own, at most `spare`, in blocks that it has or that are
// free: nobody is preempted for a guess. The guess is cut to them.
std::int64_t Scheduler::room_for_guess(Sequence& sequence, std::int64_t spare) {
  if (sequence.left() != 1) spare = 0;
  std::int64_t rows = std::min(std::ssize(sequence.guess), std::max<std::int64_t>(spare, 0));
  const std::int64_t tokens = std::ssize(sequence.tokens);
  while (rows > 0 && std::ssize(sequence.blocks) < blocks_for(tokens + rows)) {
    if (pool_.available() > 0) {
      sequence.blocks.push_back(pool_.take());
    } else {
      rows = std::ssize(sequence.blocks) * pool_.block_rows() - tokens;
    }
  }
  sequence.guess.resize(static_cast<std::size_t>(rows));
  return rows;
}

std::vector<ScheduledRows> Scheduler::plan() {
  std::vector<ScheduledRows> plan;
  moves_.clear();
  budget_ = options_.max_rows;
  const std::int64_t preempted_before = stats_.preemptions;
  // Every running sequence gets its row before guesses get theirs.
  std::int64_t spare = budget_ - running();
  for (const bool answers : {true, false}) {
    const std::vector<Order> order(running_.begin(), running_.end());
    for (const Order& next : order) {
      if (budget_ == 0 || !running_.contains(next)) continue;
      Sequence& sequence = sequences_.at(next.id);
      if ((sequence.left() == 1) != answers) continue;
      const std::int64_t rows = std::min(sequence.left(), budget_);
      if (rows == 0) continue;  // its last token is on the way
      if (!reserve(next, sequence.computed + rows)) continue;
      const std::int64_t guessed = room_for_guess(sequence, spare);
      spare -= guessed;
      schedule(next, rows + guessed, plan);
    }
  }
  // What was preempted after it was planned lost its blocks.
  std::erase_if(plan, [&](const ScheduledRows& rows) {
    return !running_.contains({sequences_.at(rows.id).priority, rows.id});
  });
  while (stats_.preemptions == preempted_before && budget_ > 0 && !waiting_.empty() &&
         running() < options_.max_sequences) {
    const Order next = *waiting_.begin();
    if (!admit(next)) break;
    schedule(next, std::min(sequences_.at(next.id).left(), budget_), plan);
  }
  return plan;
}

void Scheduler::publish_full_blocks(Sequence& sequence, std::int64_t before) {
  const std::int64_t rows = pool_.block_rows();
  const std::int64_t known = std::ssize(sequence.tokens) - sequence.expected;
  const std::int64_t end = std::min(sequence.computed, known);
  for (std::int64_t block = before / rows; (block + 1) * rows <= end; ++block) {
    const auto at = static_cast<std::size_t>(block);
    const BlockId parent = at == 0 ? BlockPool::kNone : sequence.blocks[at - 1];
    pool_.publish(
        sequence.blocks[at], parent,
        std::span(sequence.tokens)
            .subspan(static_cast<std::size_t>(block * rows), static_cast<std::size_t>(rows)));
  }
}

void Scheduler::computed(std::span<const ScheduledRows> rows) {
  for (const ScheduledRows& done : rows) {
    Sequence& sequence = sequences_.at(done.id);
    NIBBLE_CHECK(sequence.computed == done.begin);
    sequence.computed += done.rows - done.guessed;
    if (sequence.reusable) publish_full_blocks(sequence, done.begin);
  }
}

}  // namespace nibble
