#include "runtime/grammar/guide.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "runtime/grammar/json_schema.h"
#include "runtime/grammar/parse_ebnf.h"
#include "runtime/grammar/parse_regex.h"

namespace nibble::grammar {
namespace {

RuleSet rules_of(SpecKind kind, std::string_view text) {
  if (kind == SpecKind::kEbnf) return parse_ebnf(text);
  RuleSet rules;
  const std::int32_t root = rules.add("root");
  Expr body =
      kind == SpecKind::kRegex ? parse_regex(text, RegexUse::kWhole) : add_json_schema(text, rules);
  rules.bodies[static_cast<std::size_t>(root)] = std::move(body);
  rules.root = root;
  return rules;
}

const char* name_of(SpecKind kind) {
  return kind == SpecKind::kJsonSchema ? "json " : kind == SpecKind::kRegex ? "regex " : "ebnf ";
}

}  // namespace

Spec make_spec(SpecKind kind, std::string_view text) {
  return {name_of(kind) + std::string(text),
          std::make_shared<const Network>(compile(rules_of(kind, text)))};
}

MaskWorker::MaskWorker() : thread_([this] { run(); }) {}

MaskWorker::~MaskWorker() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

std::shared_future<std::shared_ptr<const TokenMask>> MaskWorker::start(
    std::shared_ptr<Cursor> cursor) {
  Task task([cursor = std::move(cursor)] { return cursor->mask(); });
  auto result = task.get_future().share();
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
  return result;
}

void MaskWorker::run() {
  while (true) {
    Task task;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
      if (stop_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

Guide::Guide(std::shared_ptr<Automaton> automaton, std::shared_ptr<const TokenTrie> trie,
             std::shared_ptr<const std::vector<bool>> barred_at_start, MaskWorker& worker)
    : cursor_(std::make_shared<Cursor>(std::move(automaton))),
      trie_(std::move(trie)),
      barred_at_start_(std::move(barred_at_start)),
      worker_(worker) {
  begin();
}

void Guide::begin() {
  if (auto known = cursor_->known_mask()) {
    std::promise<std::shared_ptr<const TokenMask>> promise;
    promise.set_value(std::move(known));
    next_ = promise.get_future().share();
  } else {
    next_ = worker_.start(cursor_);
  }
}

void Guide::restrict(std::span<float> logits, std::span<const std::int32_t> stop_ids,
                     bool may_stop) {
  const std::shared_ptr<const TokenMask> mask = next_.get();
  const bool accepts = cursor_->accepts();
  // Where nothing can follow, a text must be allowed to end.
  const bool stops = accepts && (may_stop || !cursor_->goes_on());
  constexpr float kRemoved = -std::numeric_limits<float>::infinity();
  std::vector<std::pair<std::size_t, float>> ends;  // what ends a text is no part of one
  for (const std::int32_t id : stop_ids) {
    const auto at = static_cast<std::size_t>(id);
    if (id >= 0 && at < logits.size()) ends.emplace_back(at, stops ? logits[at] : kRemoved);
  }
  for (std::size_t id = 0; id < logits.size(); ++id) {
    const bool allowed = allows(*mask, id) && !(at_start_ && (*barred_at_start_)[id]);
    if (!allowed) logits[id] = kRemoved;
  }
  for (const auto& [at, logit] : ends) logits[at] = logit;
  if (std::ranges::all_of(logits, [](float logit) { return logit == kRemoved; })) {
    fail(ErrorKind::kUnsupported,
         "structured output: no token of the vocabulary can go on here; the grammar asks for bytes "
         "that it lacks");
  }
}

void Guide::accept(std::int32_t id) {
  at_start_ = false;
  const bool known = id >= 0 && id < trie_->vocab();
  if (!known || !cursor_->advance(trie_->text(id))) {
    fail(ErrorKind::kInternal, "structured output: token {} does not fit the grammar", id);
  }
  complete_ = !cursor_->goes_on();
  if (!complete_) begin();
}

void GuideMaker::read_vocabulary() {
  if (trie_ != nullptr) return;
  std::vector<std::string> bytes = token_bytes(tokenizer_);
  barred_at_start_ = std::make_shared<const std::vector<bool>>(changed_at_start(tokenizer_, bytes));
  trie_ = std::make_shared<const TokenTrie>(std::move(bytes));
  worker_ = std::make_unique<MaskWorker>();
}

std::unique_ptr<Guide> GuideMaker::make(const Spec& spec) {
  constexpr std::size_t kKept = 16;
  const std::lock_guard lock(mutex_);
  read_vocabulary();
  const auto found = std::find_if(kept_.begin(), kept_.end(),
                                  [&](const auto& one) { return one.first == spec.text; });
  if (found != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, found);
  } else {
    kept_.emplace_front(spec.text, std::make_shared<Automaton>(spec.network, trie_));
    if (kept_.size() > kKept) kept_.pop_back();
  }
  return std::make_unique<Guide>(kept_.front().second, trie_, barred_at_start_, *worker_);
}

}  // namespace nibble::grammar
