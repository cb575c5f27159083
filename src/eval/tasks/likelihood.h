// Log-likelihoods of continuations: the one kind of question that all tasks ask of a model.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "eval/tasks/task.h"
#include "model/model.h"
#include "model/tokenizer/tokenizer.h"

namespace nibble {

// Tokens of a request; neither part is empty.
struct TokenPair {
  std::vector<std::int32_t> context;
  std::vector<std::int32_t> continuation;
};

// Splits as lm-evaluation-harness does: blanks at the end of the context move to the continuation;
// the continuation is what encode(context + continuation) has beyond the length of encode(context).
// An empty context becomes BOS (or EOS when the tokenizer has no BOS). `special`: the tokenizer may
// add its BOS. kUsage when the continuation has no token.
TokenPair encode_pair(const Tokenizer& tokenizer, const TaskRequest& request, bool special = true);

struct Likelihood {
  double log_likelihood = 0;  // nats, summed over the continuation
  bool greedy = false;        // every token of it has the largest logit
};

// One result for each pair, in their order. Sequences longer than max_length + 1 tokens lose their
// beginning; kUsage when a continuation alone is longer than max_length. kCorrupt when the model
// gives NaN or infinity.
std::vector<Likelihood> likelihoods(const Model& model, std::span<const TokenPair> pairs,
                                    std::int64_t max_length, const std::string& step,
                                    const ProgressSink& progress = {});

}  // namespace nibble
