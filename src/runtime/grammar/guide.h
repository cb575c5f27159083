// Answers that must fit a grammar, while they are made.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <future>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/grammar/automaton.h"
#include "runtime/grammar/spec.h"

namespace nibble::grammar {

// One thread that works out masks, so that those who need them can do something else meanwhile.
class MaskWorker {
 public:
  MaskWorker();
  ~MaskWorker();  // what is queued is dropped
  std::shared_future<std::shared_ptr<const TokenMask>> start(std::shared_ptr<Cursor> cursor);

 private:
  using Task = std::packaged_task<std::shared_ptr<const TokenMask>()>;
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> tasks_;
  bool stop_ = false;
  std::thread thread_;
};

// The way of one answer through its grammar. Not thread-safe.
class Guide {
 public:
  Guide(std::shared_ptr<Automaton> automaton, std::shared_ptr<const TokenTrie> trie,
        std::shared_ptr<const std::vector<bool>> barred_at_start, MaskWorker& worker);

  // Removes the tokens that may not come next from a row of logits, waiting for the mask if it
  // must. `stop_ids` stay where the text may end, if `may_stop`. kUnsupported when nothing is left:
  // then the vocabulary cannot say what the grammar wants.
  void restrict(std::span<float> logits, std::span<const std::int32_t> stop_ids, bool may_stop);
  // The token that was chosen (not one that ends the text). The next mask is begun.
  void accept(std::int32_t id);
  // Whether nothing can follow.
  bool complete() const { return complete_; }

 private:
  void begin();

  std::shared_ptr<Cursor> cursor_;
  std::shared_ptr<const TokenTrie> trie_;
  std::shared_ptr<const std::vector<bool>> barred_at_start_;
  MaskWorker& worker_;
  std::shared_future<std::shared_ptr<const TokenMask>> next_;
  bool at_start_ = true;
  bool complete_ = false;
};

// Guides for the answers of one tokenizer's model. The automata of the grammars used last are kept
// with what they have learnt. Thread-safe.
class GuideMaker {
 public:
  // The tokenizer must outlive it, and this its guides.
  explicit GuideMaker(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  // The first call takes a moment: it reads the vocabulary.
  std::unique_ptr<Guide> make(const Spec& spec);

 private:
  void read_vocabulary();

  const Tokenizer& tokenizer_;
  std::mutex mutex_;
  std::shared_ptr<const TokenTrie> trie_;
  std::shared_ptr<const std::vector<bool>> barred_at_start_;
  std::list<std::pair<std::string, std::shared_ptr<Automaton>>> kept_;  // the last used first
  std::unique_ptr<MaskWorker> worker_;
};

}  // namespace nibble::grammar
