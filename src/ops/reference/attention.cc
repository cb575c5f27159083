// Reference attention: whole score rows, in double.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/reference/kv_access.h"
#include "ops/reference/reference.h"

namespace nibble::reference {
namespace {

double score(const AttentionArgs& args, const float* q, const float* k, std::int64_t head,
             std::int64_t j) {
  double sum = 0;
  for (std::int64_t d = 0; d < args.head_dim; ++d) {
    sum += static_cast<double>(q[d]) * static_cast<double>(k[d]);
  }
  sum *= static_cast<double>(args.scale);
  const auto cap = static_cast<double>(args.softcap);
  if (cap > 0) sum = cap * std::tanh(sum / cap);
  if (!args.alibi_slopes.empty()) {
    sum += static_cast<double>(args.alibi_slopes[static_cast<std::size_t>(head)]) *
           static_cast<double>(j);
  }
  return sum;
}

// Softmax of scores[0, count) and the sink, if there is one, in place; count > 0.
void softmax(double* scores, std::int64_t count, const float* sink) {
  double largest = *std::max_element(scores, scores + count);
  if (sink != nullptr) largest = std::max(largest, static_cast<double>(*sink));
  double sum = sink != nullptr ? std::exp(static_cast<double>(*sink) - largest) : 0;
  for (std::int64_t j = 0; j < count; ++j) sum += scores[j] = std::exp(scores[j] - largest);
  for (std::int64_t j = 0; j < count; ++j) scores[j] /= sum;
}

void attend(const AttentionArgs& args, const AttentionSequence& sequence, std::int64_t t,
            std::int64_t head) {
  const std::int64_t row = sequence.q_begin + t;
  const std::int64_t position = sequence.q_offset + t;
  const float* q = args.q.data + row * args.q.row_stride + head * args.q.head_stride;
  float* out = args.out + row * args.out_stride + head * args.head_dim;
  std::fill(out, out + args.head_dim, 0.0f);

  const std::int64_t begin =
      args.window > 0 ? std::max<std::int64_t>(0, position - args.window + 1) : 0;
  const std::int64_t end =
      args.causal ? std::min(sequence.kv_rows, position + 1) : sequence.kv_rows;
  if (begin >= end) return;  // a row that sees no key gives zeros

  const std::int64_t kv_head = head / (args.heads / args.kv_heads);
  std::vector<float> kv(static_cast<std::size_t>(args.head_dim));
  std::vector<double> weights(static_cast<std::size_t>(end - begin));
  for (std::int64_t j = begin; j < end; ++j) {
    decode_kv_row(args.kv_type, kv_row(sequence, sequence.k, j, kv_head), args.head_dim, kv.data());
    weights[static_cast<std::size_t>(j - begin)] = score(args, q, kv.data(), head, j);
  }
  softmax(weights.data(), end - begin, args.sinks.empty() ? nullptr : args.sinks.data() + head);

  std::vector<double> sums(kv.size());
  for (std::int64_t j = begin; j < end; ++j) {
    decode_kv_row(args.kv_type, kv_row(sequence, sequence.v, j, kv_head), args.head_dim, kv.data());
    const double weight = weights[static_cast<std::size_t>(j - begin)];
    for (std::size_t d = 0; d < kv.size(); ++d) sums[d] += weight * static_cast<double>(kv[d]);
  }
  for (std::size_t d = 0; d < kv.size(); ++d) out[d] = static_cast<float>(sums[d]);
}

}  // namespace

void attention(const AttentionArgs& args, ExecContext& context) {
  for (const AttentionSequence& sequence : args.sequences) {
    context.pool.parallel_for(sequence.q_rows * args.heads, 1,
                              [&](std::int64_t begin, std::int64_t end) {
                                for (std::int64_t i = begin; i < end; ++i) {
                                  attend(args, sequence, i / args.heads, i % args.heads);
                                }
                              });
  }
}

}  // namespace nibble::reference
