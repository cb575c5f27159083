#include "eval/tasks/likelihood.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/error.h"
#include "eval/chunks.h"
#include "eval/row_math.h"

namespace nibble {
namespace {

// Length of `text` without the blanks at its end, as Python's str.rstrip() sees them.
std::size_t stripped_size(std::string_view text) {
  static const std::vector<std::string_view> kBlanks = {
      "\t",     "\n",     "\v",     "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",
      "\x1f",   " ",      "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002",
      "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a",
      "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};
  while (true) {
    const auto blank = std::find_if(kBlanks.begin(), kBlanks.end(),
                                    [&](std::string_view b) { return text.ends_with(b); });
    if (blank == kBlanks.end()) return text.size();
    text.remove_suffix(blank->size());
  }
}

// With an empty context there must still be something to predict from.
TokenPair encode_without_context(const Tokenizer& tokenizer, const std::string& continuation) {
  const std::vector<std::int32_t> ids = tokenizer.encode(continuation, {.add_special = false});
  const auto prefix = tokenizer.bos().has_value() ? tokenizer.bos() : tokenizer.eos();
  if (!prefix.has_value()) {
    fail(ErrorKind::kUsage,
         "eval tasks: an empty context needs a BOS or EOS token, the tokenizer has neither");
  }
  if (!ids.empty() && ids.front() == *prefix) return {{*prefix}, {ids.begin() + 1, ids.end()}};
  return {{*prefix}, ids};
}

// What the model reads: everything but the last token, its beginning cut to max_length.
std::vector<std::int32_t> input_of(const TokenPair& pair, std::int64_t max_length) {
  std::vector<std::int32_t> ids = pair.context;
  ids.insert(ids.end(), pair.continuation.begin(), pair.continuation.end() - 1);
  const auto excess = static_cast<std::int64_t>(ids.size()) - max_length;
  if (excess > 0) ids.erase(ids.begin(), ids.begin() + excess);
  return ids;
}

// Some pairs that go through the model together. Pairs with the same input (choices of one token)
// share its rows.
struct Group {
  Batch batch;
  std::vector<std::int64_t> ends;  // for each pair, the row after the last of its input

  void add(const std::vector<std::int32_t>& input) {
    const auto rows = static_cast<std::int64_t>(input.size());
    const bool same = !batch.sequences.empty() && batch.sequences.back().rows == rows &&
                      std::equal(input.begin(), input.end(), batch.ids.end() - rows);
    if (!same) {
      batch.ids.insert(batch.ids.end(), input.begin(), input.end());
      batch.sequences.push_back({.rows = rows});
    }
    ends.push_back(batch.rows());
  }
};

struct TokenScore {
  double nll = 0;
  bool top = false;
};

// Scores targets[i] with the logits of hidden row rows[i].
std::vector<TokenScore> score_rows(const Model& model, const Tensor& hidden,
                                   const std::vector<std::int64_t>& rows,
                                   const std::vector<std::int32_t>& targets) {
  const std::int64_t vocab = model.spec().vocab;
  const std::int64_t width = hidden.dim(1);
  const auto total = static_cast<std::int64_t>(rows.size());
  const std::int64_t chunk = std::min(total, head_rows(vocab));
  Tensor x = Tensor::allocate(DType::kF32, {chunk, width});
  Tensor y = Tensor::allocate(DType::kF32, {chunk, vocab});
  std::vector<TokenScore> scores(rows.size());
  for (std::int64_t at = 0; at < total; at += chunk) {
    const std::int64_t n = std::min(chunk, total - at);
    for (std::int64_t r = 0; r < n; ++r) {
      const float* const row =
          hidden.data<float>() + rows[static_cast<std::size_t>(at + r)] * width;
      std::copy(row, row + width, x.mutable_data<float>() + r * width);
    }
    float* const logits = y.mutable_data<float>();
    model.head(x.data<float>(), n, logits);
    model.backend().pool().parallel_for(n, 4, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::span<const float> row(logits + r * vocab, static_cast<std::size_t>(vocab));
        const auto i = static_cast<std::size_t>(at + r);
        const auto top = std::max_element(row.begin(), row.end()) - row.begin();
        scores[i] = {negative_log_likelihood(row, targets[i]), top == targets[i]};
      }
    });
  }
  return scores;
}

void score_group(const Model& model, const Group& group, std::span<const TokenPair> pairs,
                 std::span<Likelihood> results) {
  std::vector<std::int64_t> rows;
  std::vector<std::int32_t> targets;
  for (std::size_t p = 0; p < pairs.size(); ++p) {
    const std::vector<std::int32_t>& continuation = pairs[p].continuation;
    const auto count = static_cast<std::int64_t>(continuation.size());
    for (std::int64_t i = 0; i < count; ++i) rows.push_back(group.ends[p] - count + i);
    targets.insert(targets.end(), continuation.begin(), continuation.end());
  }
  const std::vector<TokenScore> scores =
      score_rows(model, model.hidden(group.batch), rows, targets);
  auto score = scores.begin();
  for (std::size_t p = 0; p < pairs.size(); ++p) {
    Likelihood& result = results[p];
    result.greedy = true;
    for (std::size_t i = 0; i < pairs[p].continuation.size(); ++i, ++score) {
      result.log_likelihood -= score->nll;
      result.greedy = result.greedy && score->top;
    }
    if (std::isnan(result.log_likelihood)) {
      fail(ErrorKind::kCorrupt,
           "eval tasks: the model's logits hold NaN or infinity; its weights are broken");
    }
  }
}

}  // namespace

TokenPair encode_pair(const Tokenizer& tokenizer, const TaskRequest& request, bool special) {
  const std::size_t kept = stripped_size(request.context);
  const std::string context = request.context.substr(0, kept);
  const std::string continuation = request.context.substr(kept) + request.continuation;
  TokenPair pair;
  if (request.context.empty()) {
    pair = encode_without_context(tokenizer, continuation);
  } else {
    pair.context = tokenizer.encode(context, {.add_special = special});
    const auto whole = tokenizer.encode(context + continuation, {.add_special = special});
    const std::size_t split = std::min(pair.context.size(), whole.size());
    pair.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(split), whole.end());
  }
  if (pair.context.empty() || pair.continuation.empty()) {
    fail(ErrorKind::kUsage, "eval tasks: '{}' after '{}' has no token of its own",
         request.continuation, request.context);
  }
  return pair;
}

std::vector<Likelihood> likelihoods(const Model& model, std::span<const TokenPair> pairs,
                                    std::int64_t max_length, const std::string& step,
                                    const ProgressSink& progress) {
  if (!model.spec().decoder) {
    fail(ErrorKind::kUnsupported, "eval tasks: {} is an encoder, it does not predict text",
         model.spec().arch);
  }
  std::vector<Likelihood> results(pairs.size());
  const auto total = static_cast<std::int64_t>(pairs.size());
  for (std::size_t begin = 0; begin < pairs.size();) {
    Group group;
    std::size_t end = begin;
    while (end < pairs.size()) {
      const auto count = static_cast<std::int64_t>(pairs[end].continuation.size());
      if (count > max_length) {
        fail(ErrorKind::kUsage, "eval tasks: an answer has {} tokens, the model takes {}", count,
             max_length);
      }
      const std::vector<std::int32_t> input = input_of(pairs[end], max_length);
      const std::int64_t rows = group.batch.rows() + static_cast<std::int64_t>(input.size());
      if (end > begin && rows > kRowsPerCall) break;
      group.add(input);
      ++end;
    }
    score_group(model, group, pairs.subspan(begin, end - begin),
                std::span(results).subspan(begin, end - begin));
    begin = end;
    nibble::progress(progress, step, static_cast<std::int64_t>(begin), total);
  }
  return results;
}

}  // namespace nibble
