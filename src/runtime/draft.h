// Guesses at how a text goes on, for a model to check several tokens in one step (Leviathan et al.
// 2023, "Fast inference from Transformers via speculative decoding").
//
// A guess is tokens, not a distribution. The engine chooses each token as it would without guesses
// - from the model's own logits, with the request's sampler - and goes on to the next as long as
// what it chose is what was guessed. So an answer is the same with and without guesses, token for
// token, sampled ones too, as far as the model's logits do not depend on how many rows a step has.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/session.h"

namespace nibble {

struct SpeculativeOptions {
  std::int64_t tokens = 0;         // guessed at once; 0: no guesses
  std::int64_t longest_ngram = 4;  // of prompt lookup
  std::int64_t shortest_ngram = 2;
};

struct DraftRequest {
  std::uint64_t id = 0;
  std::span<const std::int32_t> tokens;  // of prompt and answer so far; not empty
  std::int64_t most = 0;                 // tokens to guess
};

// Not thread-safe.
class Drafter {
 public:
  virtual ~Drafter() = default;
  // A guess for each request, of `most` tokens at most, perhaps none.
  virtual std::vector<std::vector<std::int32_t>> guess(std::span<const DraftRequest> requests) = 0;
  // The text of this id goes on no more.
  virtual void forget(std::uint64_t id) = 0;
};

// What followed the last earlier place of the longest ending of `tokens` that occurs before, of
// shortest to longest tokens (prompt lookup: Saxena 2023). Looks back 8,192 tokens at most.
std::vector<std::int32_t> look_up(std::span<const std::int32_t> tokens, std::int64_t most,
                                  std::int64_t shortest, std::int64_t longest);
std::unique_ptr<Drafter> make_lookup_drafter(const SpeculativeOptions& options);

// The likeliest tokens of a smaller model with the same vocabulary, which must outlive it and be
// used by nobody else. kUsage for an encoder. Texts longer than the model's context get no guess.
std::unique_ptr<Drafter> make_model_drafter(const Session& session);

// Decides how much to guess: what was right so far, and whether guessing made tokens come faster.
// Steps are of one of two kinds, and each kind's tokens per second and request are remembered. The
// slower kind is tried again now and then. Not thread-safe.
class SpeculationGovernor {
 public:
  explicit SpeculationGovernor(std::int64_t tokens) : most_(tokens) {}
  // Tokens to guess in the next step; 0: none.
  std::int64_t tokens() const { return guesses_ ? length_ : 0; }
  // A step that gave `tokens` to `requests` answers together, `right` of `guessed` guesses among
  // them. Steps that compute prompts are not told.
  void record(double seconds, std::int64_t requests, std::int64_t tokens, std::int64_t guessed,
              std::int64_t right);

 private:
  struct Arm {
    double seconds = 0;  // of the steps remembered, older ones fading
    double tokens = 0;   // for each request
    bool known() const { return tokens > 0; }
    double rate() const { return tokens / seconds; }
    void add(double more_seconds, double more_tokens);
  };
  void decide();

  std::int64_t most_;
  std::int64_t length_ = most_;
  double right_share_ = 1;  // of what was guessed
  Arm with_, without_;
  bool guesses_ = true;
  std::int64_t steps_ = 0;   // since the kind was chosen
  std::int64_t pause_ = 32;  // steps until the slower kind is tried again
};

}  // namespace nibble
