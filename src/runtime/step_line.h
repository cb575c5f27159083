// The steps of an engine, one after the other. Where the backend works beside the host, the next
// step is planned and issued while one runs: it takes the tokens which that one chooses from the
// backend's memory, and the host, when they have come, finds out which answers have ended. Their
// rows of the step that was issued already are lost: nobody sees them, and what reads or writes
// their blocks afterwards comes after them on the backend.
#pragma once

#include <deque>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "runtime/step_runner.h"

namespace nibble {

struct StepResult {
  std::vector<ScheduledRows> plan;
  std::vector<StepChoice> choices;  // of each; all have an error when the step failed
};

// Not thread-safe.
class StepLine {
 public:
  // Gets the results of every step, in their order, within the calls below: appends what was chosen
  // to the sequences, and removes those that end. By then some of the plan may be gone.
  using Finish = std::function<void(StepResult)>;

  // All must outlive it.
  StepLine(const Model& model, StepRunner& runner, Scheduler& scheduler, const Answers& answers,
           Finish finish)
      : works_beside_(model.runs_beside_host()),
        runner_(runner),
        scheduler_(scheduler),
        answers_(answers),
        finish_(std::move(finish)) {}

  // Before a step is planned: waits for what runs if somebody may have to be preempted, as an
  // answer that ends makes room.
  void before_plan();
  // Makes the step. With `go_on` it may still run at the return.
  void make(std::vector<ScheduledRows> plan, bool go_on);
  // Waits for what runs.
  void finish_all();

 private:
  void make_alone(std::vector<ScheduledRows> plan);
  void expect_tokens(std::span<const ScheduledRows> plan);
  void finish_oldest();
  template <class Choose>
  void finish(std::vector<ScheduledRows> plan, const Choose& choose);
  void fail(std::vector<ScheduledRows> plan, const Error& error);

  const bool works_beside_;
  StepRunner& runner_;
  Scheduler& scheduler_;
  const Answers& answers_;
  const Finish finish_;
  std::deque<std::vector<ScheduledRows>> under_way_;  // the oldest first
};

}  // namespace nibble
