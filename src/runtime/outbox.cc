#include "runtime/outbox.h"

#include <utility>

namespace nibble {
namespace {

constexpr std::size_t kMostLetters = 1 << 16;

// What the tokens make certain, and at the end what was held back.
void add_text(AnswerOutput& to, EngineUpdate& update) {
  if (to.text_decides) return;
  for (const EngineToken& token : update.tokens) update.text += to.text.push(token.chosen.id);
  if (update.finish) update.text += to.text.flush();
}

void send(AnswerOutput& to, EngineUpdate update) {
  if (to.over) return;
  try {
    add_text(to, update);
  } catch (const std::exception& error) {  // out of memory, say: others go on
    update.finish = FinishReason::kCancelled;
    update.error = Error(ErrorKind::kInternal, error.what());
  }
  to.over = update.finish.has_value();
  to.sink(std::move(update));
}

}  // namespace

Outbox::Outbox() : thread_([this] { run(); }) {}

Outbox::~Outbox() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  come_.notify_one();
  thread_.join();
}

void Outbox::post(std::shared_ptr<AnswerOutput> to, EngineUpdate update) {
  bool was_empty = false;
  {
    std::unique_lock lock(mutex_);
    gone_.wait(lock, [this] { return letters_.size() < kMostLetters; });
    was_empty = letters_.empty();
    letters_.push_back({std::move(to), std::move(update)});
  }
  if (was_empty) come_.notify_one();
}

void Outbox::run() {
  std::vector<Letter> letters;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      come_.wait(lock, [this] { return closing_ || !letters_.empty(); });
      if (letters_.empty()) return;
      std::swap(letters, letters_);
    }
    gone_.notify_all();
    for (Letter& letter : letters) send(*letter.to, std::move(letter.update));
    letters.clear();
  }
}

}  // namespace nibble
