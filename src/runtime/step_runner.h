// One step of an engine: what was planned goes through the model, and every sequence whose end is
// reached gets the tokens that follow.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "model/kv_cache.h"
#include "runtime/answer.h"
#include "runtime/chosen_tokens.h"
#include "runtime/scheduler.h"

namespace nibble {

using Answers = std::map<RequestId, Answer>;

// What one sequence of a step gives.
struct StepChoice {
  std::vector<std::int32_t> tokens;
  std::int64_t right = 0;      // of them, the first so many were guessed
  std::optional<Error> error;  // of this sequence alone
};

// Not thread-safe. Requests and sequences have the same ids.
class StepRunner {
 public:
  // All must outlive it. `memory` has the blocks that the scheduler deals out. A step chooses at
  // most so many tokens.
  StepRunner(const Model& model, const KvPool& memory, Scheduler& scheduler, Answers& answers,
             std::int64_t most_tokens)
      : model_(model),
        memory_(memory),
        scheduler_(scheduler),
        answers_(answers),
        chosen_(model, most_tokens) {}

  // Computes what is planned and tells the scheduler so; the choices in the plan's order are taken
  // by the answers, but not yet appended. Errors of the whole step are thrown.
  std::vector<StepChoice> run(std::span<const ScheduledRows> plan);

  // run() in two halves, for plans of which the backend chooses what follows. In between the next
  // step may be issued, whose sequences hold -1 - k for the token that is chosen for the plan's k;
  // those that have ended by then get nothing.
  bool can_issue(std::span<const ScheduledRows> plan) const;
  void issue(std::span<const ScheduledRows> plan);
  std::vector<StepChoice> receive(std::span<const ScheduledRows> plan);

  // The sequence has ended.
  void forget(SequenceId id) { caches_.erase(id); }

 private:
  bool backend_chooses(const ScheduledRows& rows) const;
  bool scores_prompt(const ScheduledRows& rows) const;
  std::vector<StepChoice> choose_by_logits(std::span<const ScheduledRows> plan);
  template <class Next>
  StepChoice choose(const ScheduledRows& rows, const Next& next);
  bool keys_are_near() const { return model_.backend().memory().is_host(); }
  Error reason_of(const Error& error, const ScheduledRows& rows);
  void require_finite(const ScheduledRows& rows);
  std::span<float> row_of(Tensor& logits, std::int64_t row) const;
  Tensor forward(std::span<const ScheduledRows> plan, std::span<const std::int64_t> first);
  void append(Batch& batch, const ScheduledRows& rows);
  void forward_scored(const ScheduledRows& rows, std::span<float> last);

  const Model& model_;
  const KvPool& memory_;
  Scheduler& scheduler_;
  Answers& answers_;
  ChosenTokens chosen_;
  std::map<SequenceId, KvCache> caches_;
  std::deque<KvCache> guess_caches_;  // of the guessed rows of a step
};

}  // namespace nibble
