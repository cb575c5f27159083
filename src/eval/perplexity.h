// Perplexity and the distance between two models' output distributions, over windows of a text.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/log.h"
#include "model/model.h"

namespace nibble {

// How a text is cut and which positions count.
enum class WindowProtocol {
  kWindows,   // non-overlapping windows of `context` tokens, the tail dropped, all context - 1
              // predictions of each counted (Hugging Face style)
  kLlamaCpp,  // the same windows with the first token replaced by BOS, only the second half counted
              // (positions context / 2 ... context - 2), as llama.cpp's perplexity tool
};

struct WindowOptions {
  std::int64_t context = 1024;
  WindowProtocol protocol = WindowProtocol::kWindows;
  std::int64_t max_tokens = 0;  // use at most this many tokens of the text (0 = all)
  // kLlamaCpp: what replaces each window's first token; -1, for tokenizers without BOS, replaces
  // nothing.
  std::int32_t bos = -1;
  // Each window's keys and values are read from a cache of this type; none: as they were computed.
  // Of two models this is for the one that is judged, not for the reference.
  std::optional<KvFormat> kv_type = {};
};

struct PerplexityResult {
  double perplexity = 0;       // exp(mean_nll); NaN when every prediction was NaN
  double mean_nll = 0;         // nats, over the predictions that were finite
  double stderr_nll = 0;       // standard error of mean_nll, from the per-token variance
  std::int64_t predicted = 0;  // predictions in mean_nll
  std::int64_t tokens = 0;     // tokens of the text, after max_tokens
  std::int64_t nan = 0;        // predictions whose logits held a NaN or infinity
};

// A text shorter than one window is evaluated as one window of its own length; fewer than two
// tokens is kUsage, an encoder kUnsupported. Memory: the hidden states of some thousand tokens and
// about 64 MB of logits.
PerplexityResult perplexity(const Model& model, std::span<const std::int32_t> ids,
                            const WindowOptions& options, const ProgressSink& progress = {});

struct DivergenceResult {
  // KL(reference || model) of a position, in nats, over the positions where both models are finite.
  // p99_kl is the exact 0.99-quantile, interpolated linearly.
  double mean_kl = 0, p99_kl = 0, max_kl = 0;
  double top1_agreement = 0;  // share of those positions with the same argmax
  PerplexityResult model, reference;
};

// Both models see the same windows. kUsage when the vocabularies differ in size.
DivergenceResult divergence(const Model& model, const Model& reference,
                            std::span<const std::int32_t> ids, const WindowOptions& options,
                            const ProgressSink& progress = {});

// KL(softmax(p) || softmax(q)) of two rows of logits, in double precision. NaN when either holds
// one.
double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits);

}  // namespace nibble
