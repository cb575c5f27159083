#include "runtime/step_runner.h"

#include <algorithm>
#include <utility>

namespace nibble {

namespace {

// Where each sequence's results begin among those of a step, and their number: one for its end, one
// for each token that is guessed behind it.
std::vector<std::int64_t> first_results(std::span<const ScheduledRows> plan) {
  std::vector<std::int64_t> first = {0};
  for (const ScheduledRows& rows : plan) first.push_back(first.back() + rows.guessed + 1);
  return first;
}

}  // namespace

std::vector<StepChoice> StepRunner::run(std::span<const ScheduledRows> plan) {
  const bool there = std::ranges::all_of(
      plan, [this](const ScheduledRows& rows) { return backend_chooses(rows); });
  if (!there) return choose_by_logits(plan);
  issue(plan);
  return receive(plan);
}

bool StepRunner::can_issue(std::span<const ScheduledRows> plan) const {
  return std::ranges::all_of(plan, [this](const ScheduledRows& rows) {
    return rows.guessed == 0 && backend_chooses(rows);
  });
}

// Whether the backend can choose what follows: then no logits leave it.
bool StepRunner::backend_chooses(const ScheduledRows& rows) const {
  const Answer& answer = answers_.at(rows.id);
  return !scores_prompt(rows) &&
         (!rows.samples || answer.needs_only_logits(scheduler_.expected(rows.id)));
}

bool StepRunner::scores_prompt(const ScheduledRows& rows) const {
  const EngineRequest& request = answers_.at(rows.id).request();
  return request.prompt_logprobs && rows.begin < std::ssize(request.prompt);
}

void StepRunner::issue(std::span<const ScheduledRows> plan) {
  Batch batch;
  std::vector<TokenChoice> how;  // of each result
  for (const ScheduledRows& rows : plan) {
    append(batch, rows);
    const std::int64_t ahead = scheduler_.expected(rows.id);
    for (std::int64_t at = ahead; at <= ahead + rows.guessed; ++at) {
      how.push_back(rows.samples ? answers_.at(rows.id).choice(static_cast<std::size_t>(at))
                                 : TokenChoice{});
    }
  }
  chosen_.issue(batch, how);
  guess_caches_.clear();
  scheduler_.computed(plan);
}

std::vector<StepChoice> StepRunner::receive(std::span<const ScheduledRows> plan) {
  const std::span<const std::int32_t> tokens = chosen_.receive();
  const std::vector<std::int64_t> first = first_results(plan);
  std::vector<StepChoice> choices(plan.size());
  for (std::size_t i = 0; i < plan.size(); ++i) {
    if (!answers_.contains(plan[i].id)) continue;
    choices[i] = choose(plan[i], [&](Answer& answer, std::int64_t at, const auto&) {
      return answer.accept(tokens[static_cast<std::size_t>(first[i] + at)]);
    });
  }
  return choices;
}

std::vector<StepChoice> StepRunner::choose_by_logits(std::span<const ScheduledRows> plan) {
  const std::vector<std::int64_t> first = first_results(plan);
  Tensor logits = forward(plan, first);
  guess_caches_.clear();
  scheduler_.computed(plan);
  std::vector<StepChoice> choices(plan.size());
  model_.backend().pool().parallel_for(
      std::ssize(plan), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const auto one = static_cast<std::size_t>(i);
          choices[one] = choose(plan[one], [&](Answer& answer, std::int64_t at,
                                               std::span<const std::int32_t> context) {
            return answer.choose(row_of(logits, first[one] + at), context);
          });
        }
      });
  return choices;
}

std::span<float> StepRunner::row_of(Tensor& logits, std::int64_t row) const {
  const std::int64_t vocab = model_.spec().vocab;
  return {logits.mutable_data<float>() + row * vocab, static_cast<std::size_t>(vocab)};
}

// next: of an answer, the token by the result `at` behind a context, or none when it has ended.
// What was guessed is gone through as long as it is what is chosen.
template <class Next>
StepChoice StepRunner::choose(const ScheduledRows& rows, const Next& next) {
  StepChoice choice;
  try {
    if (keys_are_near()) require_finite(rows);
    if (!rows.samples) return choice;
    Answer& answer = answers_.at(rows.id);
    const std::span<const std::int32_t> known = scheduler_.tokens(rows.id);
    const std::span<const std::int32_t> guess = scheduler_.guess(rows.id);
    std::vector<std::int32_t> longer;  // the context, once a guess was right
    for (std::int64_t at = 0; at <= rows.guessed; ++at) {
      const std::optional<std::int32_t> token = next(answer, at, at == 0 ? known : longer);
      if (!token) break;
      choice.tokens.push_back(*token);
      const bool right = at < rows.guessed && *token == guess[static_cast<std::size_t>(at)];
      if (!right || answer.over()) break;
      ++choice.right;
      if (at == 0) longer.assign(known.begin(), known.end());
      longer.push_back(*token);
    }
  } catch (const Error& error) {
    choice.error = reason_of(error, rows);
  }
  return choice;
}

// Looking at keys and values on a card for every token would take longer than the token: they are
// looked at once an answer is broken.
Error StepRunner::reason_of(const Error& error, const ScheduledRows& rows) {
  if (keys_are_near() || error.kind() != ErrorKind::kCorrupt) return error;
  try {
    require_finite(rows);
  } catch (const Error& reason) {
    return reason;
  }
  return error;
}

// A value beyond the range of F16 became infinity when it was stored.
void StepRunner::require_finite(const ScheduledRows& rows) {
  KvCache& cache = caches_.at(rows.id);
  if (rows.guessed > 0) cache.set_blocks(scheduler_.blocks(rows.id), rows.begin + rows.rows);
  for (std::int64_t layer = 0; layer < model_.spec().layers; ++layer) {
    if (!cache.overflowed(layer, rows.begin)) continue;
    fail(ErrorKind::kUnsupported,
         "keys or values of layer {} are beyond the range of an F16 cache; use a BF16 or F32 one",
         layer);
  }
}

// Logits of all results, [first.back(), vocab].
Tensor StepRunner::forward(std::span<const ScheduledRows> plan,
                           std::span<const std::int64_t> first) {
  Batch batch;
  std::vector<std::int64_t> place;  // among the results, of each sequence of the batch
  Tensor logits = Tensor::allocate(DType::kF32, {first.back(), model_.spec().vocab});
  for (std::size_t i = 0; i < plan.size(); ++i) {
    if (scores_prompt(plan[i])) {
      forward_scored(plan[i], row_of(logits, first[i]));
      continue;
    }
    append(batch, plan[i]);
    for (std::int64_t row = first[i]; row < first[i + 1]; ++row) place.push_back(row);
  }
  if (place.empty()) return logits;
  Tensor last = model_.last_logits(batch);
  if (std::ssize(place) == first.back()) return last;
  for (std::size_t i = 0; i < place.size(); ++i) {
    std::ranges::copy(row_of(last, static_cast<std::int64_t>(i)), row_of(logits, place[i]).begin());
  }
  return logits;
}

// Guessed tokens follow as sequences of one row each, in the same blocks: a step stores all keys
// and values before it reads any, and gives a result for the last row of every sequence.
void StepRunner::append(Batch& batch, const ScheduledRows& rows) {
  const std::int64_t own = rows.rows - rows.guessed;
  const auto tokens = scheduler_.tokens(rows.id).subspan(static_cast<std::size_t>(rows.begin),
                                                         static_cast<std::size_t>(own));
  KvCache& cache = caches_.try_emplace(rows.id, memory_).first->second;
  cache.set_blocks(scheduler_.blocks(rows.id), rows.begin);
  batch.ids.insert(batch.ids.end(), tokens.begin(), tokens.end());
  batch.sequences.push_back({own, rows.begin, &cache});
  for (std::int64_t i = 0; i < rows.guessed; ++i) {
    batch.ids.push_back(scheduler_.guess(rows.id)[static_cast<std::size_t>(i)]);
    KvCache& longer = guess_caches_.emplace_back(memory_);
    longer.set_blocks(scheduler_.blocks(rows.id), rows.begin + own + i);
    batch.sequences.push_back({1, rows.begin + own + i, &longer});
  }
}

// A part of a prompt all of whose tokens are to be scored; the last row's logits go to `last`.
void StepRunner::forward_scored(const ScheduledRows& rows, std::span<float> last) {
  constexpr std::int64_t kRows = 64;  // of logits at once
  Batch batch;
  append(batch, rows);
  const Tensor hidden = model_.hidden(batch);
  const std::int64_t vocab = model_.spec().vocab;
  for (std::int64_t at = 0; at < rows.rows; at += kRows) {
    const std::int64_t count = std::min(kRows, rows.rows - at);
    Tensor logits = Tensor::allocate(DType::kF32, {count, vocab});
    model_.head(hidden.data<float>() + at * model_.spec().hidden, count,
                logits.mutable_data<float>());
    answers_.at(rows.id).score_prompt(
        rows.begin + at, {logits.data<float>(), static_cast<std::size_t>(logits.elements())},
        vocab);
    std::ranges::copy(row_of(logits, count - 1), last.begin());
  }
}

}  // namespace nibble
