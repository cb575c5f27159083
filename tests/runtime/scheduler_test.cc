// The scheduler over a played device: random streams of requests, with everything checked after
// every step.
#include "runtime/scheduler.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>

namespace nibble {
namespace {

// Plays the device: remembers which tokens each block of the cache holds, and checks that what a
// step reads is what an earlier one wrote.
class PlayedCache {
 public:
  explicit PlayedCache(std::int64_t block_rows) : block_rows_(block_rows) {}

  // Copies a block whole, with what it holds of former owners.
  void move(const BlockMove& move) {
    for (std::int64_t row = 0; row < block_rows_; ++row) {
      std::int32_t& cell = cells_[{move.block, row}];
      std::int32_t& kept = kept_[{move.kept, row}];
      (move.out ? kept : cell) = move.out ? cell : kept;
    }
  }

  // Empty, or what is wrong. `chosen`: of the step before, by placeholders.
  std::string run(const Scheduler& scheduler, const ScheduledRows& rows,
                  std::span<const std::int32_t> chosen) {
    const auto tokens = scheduler.tokens(rows.id);
    const auto blocks = scheduler.blocks(rows.id);
    if (rows.begin + rows.rows > std::ssize(blocks) * block_rows_) return "no room for its rows";
    const auto guess = scheduler.guess(rows.id);
    if (rows.guessed > std::ssize(guess)) return "more guesses than there are";
    for (std::int64_t i = 0; i < rows.begin + rows.rows; ++i) {
      std::int32_t& cell =
          cells_[{blocks[static_cast<std::size_t>(i / block_rows_)], i % block_rows_}];
      std::int32_t token = i < std::ssize(tokens)
                               ? tokens[static_cast<std::size_t>(i)]
                               : guess[static_cast<std::size_t>(i - std::ssize(tokens))];
      if (token < 0) {
        if (-1 - token >= std::ssize(chosen)) return "the step before chose no such token";
        token = chosen[static_cast<std::size_t>(-1 - token)];
      }
      if (i >= rows.begin) {
        cell = token;
      } else if (cell != token) {
        return "reads another sequence's token";
      }
    }
    return "";
  }

 private:
  std::int64_t block_rows_;
  std::map<std::pair<BlockId, std::int64_t>, std::int32_t> cells_;
  std::map<std::pair<BlockId, std::int64_t>, std::int32_t> kept_;  // of the second pool
};

struct Client {
  std::int64_t answer = 0;  // tokens wanted
  std::int64_t got = 0;
  std::int64_t idle = 0;  // steps without progress
};

class Play {
 public:
  // `keeping`: preempted sequences find a second pool, often too small. `ahead`: steps are planned
  // while the one before runs, and nothing is guessed.
  Play(unsigned seed, bool caching, bool keeping, bool ahead)
      : ahead_(ahead),
        random_(seed),
        pool_(number(4, 40), number(1, 9)),
        keep_(keeping ? number(1, pool_.blocks()) : 0, pool_.block_rows()),
        options_{number(1, 12), number(1, 60), caching},
        scheduler_(options_, pool_, keeping ? &keep_ : nullptr),
        cache_(pool_.block_rows()) {}

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      for (std::int64_t n = number(0, 3); n > 1; --n) arrive();
      if (number(0, 20) == 0) leave();
      step();
      ASSERT_FALSE(::testing::Test::HasFailure()) << "step " << i;
    }
    const std::int64_t bound = 200 * std::ssize(clients_) + 200;
    for (std::int64_t i = 0; i < bound && !clients_.empty(); ++i) step();
    finish_steps(0);
    EXPECT_TRUE(clients_.empty()) << "starved";
    EXPECT_EQ(pool_.available(), pool_.blocks()) << "leaked";
    EXPECT_TRUE(pool_.is_sound({}));
    EXPECT_EQ(keep_.available(), keep_.blocks()) << "leaked";
    EXPECT_TRUE(keep_.is_sound({}));
  }

  const SchedulerStats& stats() const { return scheduler_.stats(); }
  std::int64_t finished() const { return finished_; }
  std::int64_t guessed() const { return guessed_; }
  std::int64_t discarded() const { return discarded_; }

 private:
  struct Step {
    std::vector<ScheduledRows> plan;
    std::vector<std::int32_t> chosen;  // by the device, for each of the plan
  };

  std::int64_t number(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }

  void arrive() {
    const std::int64_t most = pool_.blocks() * pool_.block_rows();
    const std::int64_t all = number(2, most);
    const std::int64_t prompt = number(1, all - 1);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(prompt));
    const auto kind = static_cast<std::int32_t>(number(0, 2));  // many prompts begin alike
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<std::int32_t>(i) < number(0, most) ? kind : 7 + kind;
    }
    scheduler_.add(++last_, static_cast<std::int32_t>(number(0, 1)), tokens, number(0, 4) > 0);
    clients_[last_] = {.answer = all - prompt};
  }

  void leave() {
    if (clients_.empty()) return;
    auto at = clients_.begin();
    std::advance(at, number(0, std::ssize(clients_) - 1));
    scheduler_.remove(at->first);
    clients_.erase(at);
  }

  // Guesses for some of the answers that run.
  void suggest() {
    for (const auto& [id, client] : clients_) {
      const std::int64_t left = client.answer - client.got - 1;
      if (left < 1 || client.got == 0 || !scheduler_.is_answering(id) || number(0, 1) == 0)
        continue;
      std::vector<std::int32_t> guess(
          static_cast<std::size_t>(number(1, std::min<std::int64_t>(left, 6))));
      for (std::int32_t& token : guess) token = static_cast<std::int32_t>(number(0, 9));
      scheduler_.suggest(id, guess);
    }
  }

  void step() {
    if (!scheduler_.fits_next_step()) finish_steps(0);
    if (!ahead_) suggest();
    const std::int64_t preemptions = stats().preemptions;
    Step next;
    next.plan = scheduler_.plan();
    EXPECT_TRUE(under_way_.empty() || stats().preemptions == preemptions) << "too early";
    for (const BlockMove& move : scheduler_.moves()) cache_.move(move);
    compute(next);
    EXPECT_TRUE(clients_.empty() || !next.plan.empty() || !under_way_.empty()) << "nothing runs";
    if (next.plan.empty()) return finish_steps(0);
    if (!ahead_) {
      for (const ScheduledRows& rows : next.plan) {
        if (rows.samples) answer(rows);
      }
      return;
    }
    expect_tokens(next.plan);
    under_way_.push_back(std::move(next));
    check_blocks();
    finish_steps(number(0, 5) > 0 ? 1 : 0);
  }

  void compute(Step& step) {
    std::int64_t sum = 0;
    std::map<SequenceId, int> seen;
    for (const ScheduledRows& rows : step.plan) {
      EXPECT_EQ(++seen[rows.id], 1);
      EXPECT_GT(rows.rows, 0);
      EXPECT_EQ(cache_.run(scheduler_, rows, chosen_), "");
      sum += rows.rows;
      step.chosen.push_back(static_cast<std::int32_t>(number(0, 9)));
    }
    chosen_ = step.chosen;
    EXPECT_LE(sum, options_.max_rows);
    EXPECT_LE(scheduler_.running(), options_.max_sequences);
    scheduler_.computed(step.plan);
    check_blocks();
  }

  void expect_tokens(const std::vector<ScheduledRows>& plan) {
    for (std::size_t i = 0; i < plan.size(); ++i) {
      const Client& client = clients_.at(plan[i].id);
      const std::int64_t last = client.answer - client.got - scheduler_.expected(plan[i].id);
      if (!plan[i].samples || last == 1) continue;
      scheduler_.expect(plan[i].id, -1 - static_cast<std::int32_t>(i));
    }
  }

  // Gets the tokens of the oldest steps, until so many are under way. Some of the answers end
  // there, perhaps with a row in a later step; some have been cancelled.
  void finish_steps(std::size_t left) {
    for (; under_way_.size() > left; under_way_.pop_front()) {
      const Step& step = under_way_.front();
      for (std::size_t i = 0; i < step.plan.size(); ++i) {
        const SequenceId id = step.plan[i].id;
        if (!step.plan[i].samples || !clients_.contains(id)) continue;
        Client& client = clients_.at(id);
        const bool stops = number(0, 15) == 0;
        if (!stops) scheduler_.append(id, step.chosen[i]);
        if (!stops && ++client.got < client.answer) continue;
        for (std::size_t later = 1; later < under_way_.size(); ++later) {
          discarded_ += std::ranges::count(under_way_[later].plan, id, &ScheduledRows::id);
        }
        end(id);
      }
      check_blocks();
    }
  }

  void end(SequenceId id) {
    scheduler_.remove(id);
    clients_.erase(id);
    ++finished_;
  }

  // The first guesses are right, some of them, and then comes a token that was not guessed.
  void answer(const ScheduledRows& rows) {
    Client& client = clients_.at(rows.id);
    guessed_ += rows.guessed;
    const auto span = scheduler_.guess(rows.id);
    const std::vector<std::int32_t> guess(span.begin(), span.end());
    const std::int64_t right = number(0, rows.guessed);
    for (std::int64_t i = 0; i <= right && client.got < client.answer; ++i, ++client.got) {
      const bool last = i == right;
      scheduler_.append(
          rows.id,
          last ? static_cast<std::int32_t>(number(0, 9)) : guess[static_cast<std::size_t>(i)],
          !last);
    }
    check_blocks();
    if (client.got < client.answer) {
      EXPECT_TRUE(scheduler_.is_answering(rows.id)) << "right guesses are in the cache";
      EXPECT_TRUE(scheduler_.guess(rows.id).empty()) << "a guess is of one step";
      return;
    }
    end(rows.id);
  }

  void check_blocks() {
    std::vector<std::vector<BlockId>> held;
    std::vector<std::vector<BlockId>> kept;
    for (const auto& [id, client] : clients_) {
      const auto blocks = scheduler_.blocks(id);
      held.emplace_back(blocks.begin(), blocks.end());
      const auto aside = scheduler_.kept(id);
      kept.emplace_back(aside.begin(), aside.end());
      EXPECT_TRUE(blocks.empty() || aside.empty()) << "in both memories at once";
      if (scheduler_.expected(id) == 0) continue;
      const std::vector<BlockId> found = pool_.find(scheduler_.tokens(id));
      const std::int64_t known = std::ssize(scheduler_.tokens(id)) - scheduler_.expected(id);
      EXPECT_LE(std::ssize(found) * pool_.block_rows(), known) << "published before it is known";
      pool_.release(found);
    }
    EXPECT_TRUE(pool_.is_sound(held));
    EXPECT_TRUE(keep_.is_sound(kept));
  }

  const bool ahead_;
  std::mt19937 random_;
  BlockPool pool_;
  BlockPool keep_;
  SchedulerOptions options_;
  Scheduler scheduler_;
  PlayedCache cache_;
  std::deque<Step> under_way_;        // the oldest first
  std::vector<std::int32_t> chosen_;  // by the step that was planned last
  SequenceId last_ = 0;
  std::map<SequenceId, Client> clients_;
  std::int64_t finished_ = 0;
  std::int64_t guessed_ = 0;
  std::int64_t discarded_ = 0;  // rows of answers that had ended
};

TEST(SchedulerTest, RandomStreamsKeepEveryPromise) {
  std::int64_t preemptions = 0;
  std::int64_t found = 0;
  std::int64_t finished = 0;
  std::int64_t guessed = 0;
  std::int64_t kept = 0;
  std::int64_t discarded = 0;
  for (unsigned seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    Play play(seed, seed % 5 != 0, seed % 3 != 0, seed % 2 != 0);
    play.run(80);
    ASSERT_FALSE(::testing::Test::HasFailure());
    preemptions += play.stats().preemptions;
    found += play.stats().found_tokens;
    finished += play.finished();
    guessed += play.guessed();
    kept += play.stats().kept_tokens;
    discarded += play.discarded();
  }
  // The streams are worth their name.
  EXPECT_GT(preemptions, 100);
  EXPECT_GT(found, 1000);
  EXPECT_GT(finished, 1000);
  EXPECT_GT(guessed, 1000);
  EXPECT_GT(kept, 1000);
  EXPECT_GT(discarded, 100);
}

std::vector<std::int32_t> prompt(std::size_t count, std::int32_t token = 1) {
  return std::vector<std::int32_t>(count, token);
}

void finish_step(Scheduler& scheduler, const std::vector<ScheduledRows>& plan) {
  scheduler.computed(plan);
  for (const ScheduledRows& rows : plan) {
    if (rows.samples) scheduler.append(rows.id, 5);
  }
}

TEST(SchedulerTest, AnswersAreNotHeldUpByALongPrompt) {
  BlockPool pool(100, 16);
  Scheduler scheduler({.max_sequences = 8, .max_rows = 32}, pool);
  scheduler.add(1, 0, prompt(200));  // older, and long
  scheduler.add(2, 0, prompt(10, 2));
  finish_step(scheduler, scheduler.plan());
  std::int64_t answers = 0;
  for (int i = 0; i < 7; ++i) {
    const std::vector<ScheduledRows> plan = scheduler.plan();
    for (const ScheduledRows& rows : plan) answers += rows.id == 2 && rows.samples ? 1 : 0;
    finish_step(scheduler, plan);
  }
  EXPECT_GE(answers, 1);
}

TEST(SchedulerTest, PriorityComesBeforeArrival) {
  BlockPool pool(100, 16);
  Scheduler scheduler({.max_sequences = 1, .max_rows = 64}, pool);
  scheduler.add(1, 5, prompt(20));
  scheduler.add(2, -1, prompt(20, 2));
  const std::vector<ScheduledRows> plan = scheduler.plan();
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_EQ(plan[0].id, 2u);
}

TEST(SchedulerTest, TheLastInOrderMakesRoom) {
  BlockPool pool(4, 4);
  Scheduler scheduler({.max_sequences = 4, .max_rows = 64}, pool);
  scheduler.add(1, 0, prompt(8));
  scheduler.add(2, 0, prompt(8, 2));
  finish_step(scheduler, scheduler.plan());
  EXPECT_EQ(scheduler.running(), 2);
  const std::vector<ScheduledRows> plan = scheduler.plan();  // both need a third block
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_EQ(plan[0].id, 1u);
  EXPECT_EQ(scheduler.running(), 1);
  EXPECT_EQ(scheduler.waiting(), 1);
  EXPECT_EQ(scheduler.stats().preemptions, 1);
  EXPECT_TRUE(scheduler.moves().empty());  // there is nowhere to keep it
}

TEST(SchedulerTest, WhatIsKeptIsNotComputedAgain) {
  BlockPool pool(4, 4);
  BlockPool keep(1, 4);
  Scheduler scheduler({.max_sequences = 4, .max_rows = 64, .prefix_caching = false}, pool, &keep);
  scheduler.add(1, 0, prompt(8));
  scheduler.add(2, 0, prompt(8, 2));
  finish_step(scheduler, scheduler.plan());
  const BlockId first = scheduler.blocks(2).front();
  finish_step(scheduler, scheduler.plan());  // the second makes room for the first
  ASSERT_EQ(scheduler.moves().size(), 1u);   // of its two blocks, one has a place
  EXPECT_TRUE(scheduler.moves()[0].out);
  EXPECT_EQ(scheduler.moves()[0].block, first);
  EXPECT_EQ(scheduler.stats().kept_tokens, 4);
  scheduler.remove(1);
  const std::vector<ScheduledRows> plan = scheduler.plan();
  ASSERT_EQ(scheduler.moves().size(), 1u);
  EXPECT_FALSE(scheduler.moves()[0].out);
  EXPECT_EQ(scheduler.moves()[0].block, scheduler.blocks(2).front());
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_EQ(plan[0].begin, 4);
  EXPECT_EQ(plan[0].rows, 5);
  EXPECT_EQ(keep.available(), 1);
}

TEST(SchedulerTest, ATokenIsPlannedForBeforeItIsKnown) {
  BlockPool pool(4, 4);
  Scheduler scheduler({.max_sequences = 4, .max_rows = 64}, pool);
  scheduler.add(1, 0, prompt(3));
  scheduler.computed(scheduler.plan());
  scheduler.expect(1, -1);
  const std::vector<ScheduledRows> plan = scheduler.plan();
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_EQ(plan[0].begin, 3);
  EXPECT_EQ(plan[0].rows, 1);
  EXPECT_TRUE(plan[0].samples);
  EXPECT_EQ(scheduler.tokens(1).back(), -1);
  scheduler.computed(plan);  // its block is full of what nobody knows
  scheduler.expect(1, -2);
  EXPECT_TRUE(pool.find(scheduler.tokens(1)).empty());
  scheduler.append(1, 5);
  EXPECT_THAT(scheduler.tokens(1), testing::ElementsAre(1, 1, 1, 5, -2));
  const std::vector<BlockId> found = pool.find(scheduler.tokens(1));
  EXPECT_EQ(found.size(), 1u);
  pool.release(found);
  scheduler.remove(1);  // with a row in flight
  EXPECT_EQ(pool.available(), 4);
}

TEST(SchedulerTest, AnAnswerWhoseLastTokenIsOnTheWayIsNotPlanned) {
  BlockPool pool(4, 4);
  Scheduler scheduler({.max_sequences = 4, .max_rows = 64}, pool);
  scheduler.add(1, 0, prompt(3));
  scheduler.computed(scheduler.plan());
  EXPECT_TRUE(scheduler.plan().empty());
  scheduler.append(1, 5);
  EXPECT_EQ(scheduler.plan().size(), 1u);
}

TEST(SchedulerTest, SaysWhenSomebodyWouldHaveToMakeRoom) {
  BlockPool pool(4, 4);
  Scheduler scheduler({.max_sequences = 4, .max_rows = 64}, pool);
  scheduler.add(1, 0, prompt(7));
  scheduler.add(2, 0, prompt(8, 2));
  finish_step(scheduler, scheduler.plan());
  EXPECT_FALSE(scheduler.fits_next_step());  // the second needs a third block
  scheduler.remove(1);
  EXPECT_TRUE(scheduler.fits_next_step());
}

}  // namespace
}  // namespace nibble
