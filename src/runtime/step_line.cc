#include "runtime/step_line.h"

#include <utility>

namespace nibble {
namespace {

// An error of any kind, as ours.
Error current_error() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::exception& error) {
    return Error(ErrorKind::kInternal, error.what());
  }
}

}  // namespace

template <class Choose>
void StepLine::finish(std::vector<ScheduledRows> plan, const Choose& choose) {
  std::vector<StepChoice> choices;
  try {
    choices = choose(plan);
  } catch (const std::exception&) {
    return fail(std::move(plan), current_error());
  }
  finish_({std::move(plan), std::move(choices)});
}

void StepLine::before_plan() {
  if (!under_way_.empty() && !scheduler_.fits_next_step()) finish_all();
}

void StepLine::make(std::vector<ScheduledRows> plan, bool go_on) {
  if (plan.empty()) return finish_all();
  if (!runner_.can_issue(plan)) return make_alone(std::move(plan));
  try {
    runner_.issue(plan);
  } catch (const std::exception&) {
    const Error error = current_error();
    finish_all();  // that one is no worse for it
    return fail(std::move(plan), error);
  }
  under_way_.push_back(std::move(plan));
  expect_tokens(under_way_.back());
  const std::size_t left = works_beside_ && go_on ? 1 : 0;
  while (under_way_.size() > left) finish_oldest();
}

// A step for which the host must know all tokens.
void StepLine::make_alone(std::vector<ScheduledRows> plan) {
  finish_all();
  std::erase_if(plan, [this](const ScheduledRows& rows) { return !answers_.contains(rows.id); });
  if (plan.empty()) return;
  finish(std::move(plan), [this](const auto& rows) { return runner_.run(rows); });
}

// The last token of an answer is none that another would follow.
void StepLine::expect_tokens(std::span<const ScheduledRows> plan) {
  std::int32_t placeholder = 0;
  for (const ScheduledRows& rows : plan) {
    --placeholder;
    if (!rows.samples) continue;
    const std::int64_t left = answers_.at(rows.id).tokens_left() - scheduler_.expected(rows.id);
    if (left > 1) scheduler_.expect(rows.id, placeholder);
  }
}

void StepLine::finish_all() {
  while (!under_way_.empty()) finish_oldest();
}

void StepLine::finish_oldest() {
  std::vector<ScheduledRows> plan = std::move(under_way_.front());
  under_way_.pop_front();
  finish(std::move(plan), [this](const auto& rows) { return runner_.receive(rows); });
}

void StepLine::fail(std::vector<ScheduledRows> plan, const Error& error) {
  std::vector<StepChoice> choices(plan.size());
  for (StepChoice& choice : choices) choice.error = error;
  finish_({std::move(plan), std::move(choices)});
}

}  // namespace nibble
