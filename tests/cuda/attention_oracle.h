// Attention in float64 on the host, on operands rounded as a kernel says that it rounds them, with
// a bound on what is left of the error.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "backends/cuda/kernels/attention_args.h"
#include "base/half.h"
#include "formats/kv_type.h"

namespace nibble::test {

// What a kernel rounds before it multiplies.
struct AttentionRounding {
  bool queries_bf16 = false;
  bool queries_f16 = false;  // after division by a power of two
  bool rows_bf16 = false;
  double weights = 0;        // unit roundoff of the softmax's weights
  double least_weights = 0;  // and their largest error near zero, relative to the largest weight
};

struct SequenceShape {
  std::int64_t q_rows;
  std::int64_t kv_rows;
};

struct AttentionCase {
  KvType kv_type = KvType::kBF16;
  int heads = 8;
  int kv_heads = 2;
  int head_dim = 128;
  std::vector<SequenceShape> sequences;
  bool causal = true;
  std::int64_t window = 0;
  float softcap = 0;
  bool alibi = false;
  bool token_major = false;  // rows of a token's heads lie together, else those of a head's tokens
};

// Host copies of what an attention call reads.
struct AttentionData {
  AttentionCase shape;
  std::vector<float> q;  // rows of q_stride
  std::int64_t q_stride = 0;
  std::int64_t rows = 0;
  std::vector<std::vector<std::byte>> k;  // of each sequence
  std::vector<std::vector<std::byte>> v;
  std::int64_t row_stride = 0;  // bytes
  std::vector<std::int64_t> head_stride;
  std::vector<float> slopes;
  float scale = 0;
};

inline std::int64_t q_begin(const AttentionCase& c, std::size_t sequence) {
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < sequence; ++i) rows += c.sequences[i].q_rows;
  return rows;
}

inline std::vector<std::byte> random_rows(const AttentionData& data, std::int64_t tokens,
                                          std::int64_t head_stride, float mean,
                                          std::mt19937* random) {
  const AttentionCase& c = data.shape;
  std::normal_distribution<float> normal;
  std::vector<std::byte> rows(static_cast<std::size_t>(tokens * c.kv_heads * data.row_stride /
                                                       (c.token_major ? c.kv_heads : 1)));
  std::vector<float> values(static_cast<std::size_t>(c.head_dim));
  for (std::int64_t h = 0; h < c.kv_heads; ++h) {
    for (std::int64_t j = 0; j < tokens; ++j) {
      const float size = std::exp(0.5f * normal(*random));
      for (float& x : values) x = size * normal(*random) + mean;
      encode_kv_row(c.kv_type, values.data(), c.head_dim,
                    rows.data() + h * head_stride + j * data.row_stride);
    }
  }
  return rows;
}

inline AttentionData make_attention_data(const AttentionCase& c, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  AttentionData data;
  data.shape = c;
  data.rows = q_begin(c, c.sequences.size());
  data.q_stride = (c.heads + 2 * c.kv_heads) * c.head_dim;
  data.q.resize(static_cast<std::size_t>(data.rows * data.q_stride));
  for (float& x : data.q) x = normal(random) + 0.25f;
  const std::int64_t row_bytes = kv_row_bytes(c.kv_type, c.head_dim);
  data.row_stride = c.token_major ? row_bytes * c.kv_heads : row_bytes;
  for (const SequenceShape& s : c.sequences) {
    data.head_stride.push_back(c.token_major ? row_bytes : row_bytes * s.kv_rows);
    data.k.push_back(random_rows(data, s.kv_rows, data.head_stride.back(), 0.5f, &random));
    data.v.push_back(random_rows(data, s.kv_rows, data.head_stride.back(), -0.5f, &random));
  }
  for (int h = 0; h < c.heads; ++h) data.slopes.push_back(std::exp2(-0.5f * static_cast<float>(h)));
  data.scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
  return data;
}

// A row's output and, of each element, how far a kernel may be from it.
struct AttentionRow {
  std::vector<double> out;
  std::vector<double> bound;
};

// What the largest code of a type stands for.
inline double largest_step(KvType type) {
  return type == KvType::kFp8 ? 448 : type == KvType::kInt8 ? 255 : 15;
}

// Decoded (and, if asked for, rounded) rows of one head; the span of each: largest magnitude that a
// kernel may split its values into (offset and steps of integer rows); and what all steps of an
// integer row make together.
struct DecodedRows {
  std::vector<float> values;
  std::vector<double> span;
  std::vector<double> steps;
};

inline DecodedRows decode_rows(const AttentionData& data, const std::vector<std::byte>& rows,
                               std::size_t sequence, int head, bool round) {
  const AttentionCase& c = data.shape;
  const std::int64_t tokens = c.sequences[sequence].kv_rows;
  DecodedRows decoded;
  decoded.values.resize(static_cast<std::size_t>(tokens * c.head_dim));
  for (std::int64_t j = 0; j < tokens; ++j) {
    const std::byte* row = rows.data() + head * data.head_stride[sequence] + j * data.row_stride;
    float* values = decoded.values.data() + j * c.head_dim;
    decode_kv_row(c.kv_type, row, c.head_dim, values);
    double span = 0;
    for (int d = 0; d < c.head_dim; ++d) {
      span = std::max(span, std::abs(static_cast<double>(values[d])));
      if (round) values[d] = to_float(to_bf16(values[d]));
    }
    double steps = 0;
    if (is_quantized(c.kv_type)) {
      const KvScale stored = kv_row_scale(row);
      const auto scale = static_cast<double>(stored.scale);
      const double top = largest_step(c.kv_type);
      // Integers are split into numbers of f16 from 1024 or 16 on, and what is subtracted.
      const double split = c.kv_type == KvType::kFp8 ? top : c.kv_type == KvType::kInt8 ? 1280 : 32;
      span = std::abs(static_cast<double>(stored.offset)) + split * scale;
      steps = top * scale;
    }
    decoded.steps.push_back(steps);
    decoded.span.push_back(span);
  }
  return decoded;
}

inline std::vector<double> rounded_query(const AttentionData& data, const AttentionRounding& how,
                                         std::int64_t row, int head) {
  const int d_count = data.shape.head_dim;
  const float* q = data.q.data() + row * data.q_stride + head * d_count;
  float largest = 0;
  for (int d = 0; d < d_count; ++d) largest = std::max(largest, std::abs(q[d]));
  const float unit = std::exp2(std::floor(std::log2(largest)));
  std::vector<double> rounded;
  for (int d = 0; d < d_count; ++d) {
    float x = q[d];
    if (how.queries_bf16) x = to_float(to_bf16(x));
    if (how.queries_f16) x = to_float(to_f16(x / unit)) * unit;
    rounded.push_back(static_cast<double>(x));
  }
  return rounded;
}

inline AttentionRow attend_row(const AttentionData& data, const AttentionRounding& how,
                               std::size_t sequence, std::int64_t t, int head,
                               const DecodedRows& keys, const DecodedRows& values) {
  const AttentionCase& c = data.shape;
  const SequenceShape& s = c.sequences[sequence];
  const std::int64_t position = s.kv_rows - s.q_rows + t;
  const std::int64_t begin = c.window > 0 ? std::max<std::int64_t>(0, position - c.window + 1) : 0;
  const std::int64_t end = c.causal ? std::min(s.kv_rows, position + 1) : s.kv_rows;
  AttentionRow row;
  row.out.assign(static_cast<std::size_t>(c.head_dim), 0.0);
  row.bound.assign(static_cast<std::size_t>(c.head_dim), 0.0);
  if (begin >= end) return row;
  const std::vector<double> q = rounded_query(data, how, q_begin(c, sequence) + t, head);
  const double u = 0x1p-24;
  const auto cap = static_cast<double>(c.softcap);
  double score_error = 0;
  double largest = -INFINITY;
  std::vector<double> scores;
  for (std::int64_t j = begin; j < end; ++j) {
    const float* k = keys.values.data() + j * c.head_dim;
    double sum = 0;
    double size = 0;
    for (int d = 0; d < c.head_dim; ++d) {
      sum += q[static_cast<std::size_t>(d)] * static_cast<double>(k[d]);
      size += std::abs(q[static_cast<std::size_t>(d)]);
    }
    sum *= static_cast<double>(data.scale);
    size *= static_cast<double>(data.scale) * keys.span[static_cast<std::size_t>(j)];
    // Products and sums of head_dim terms, and a few operations after them. The tensor cores cut
    // what they add to 2^-23 of the largest term rather than round it.
    score_error = std::max(score_error, 2 * c.head_dim * u * size + 1e-6 * cap);
    if (cap > 0) sum = cap * std::tanh(sum / cap);
    if (c.alibi) {
      const double bias =
          static_cast<double>(data.slopes[static_cast<std::size_t>(head)]) * static_cast<double>(j);
      score_error = std::max(score_error, 2 * c.head_dim * u * size + 4 * u * bias);
      sum += bias;
    }
    largest = std::max(largest, sum);
    scores.push_back(sum);
  }
  double weight = 0;
  for (double& x : scores) weight += x = std::exp(x - largest);
  for (std::int64_t j = begin; j < end; ++j) {
    const double p = scores[static_cast<std::size_t>(j - begin)] / weight;
    const float* v = values.values.data() + j * c.head_dim;
    const double span = values.span[static_cast<std::size_t>(j)];
    for (int d = 0; d < c.head_dim; ++d) {
      const auto at = static_cast<std::size_t>(d);
      const auto x = static_cast<double>(v[d]);
      const double rounded_part = is_quantized(c.kv_type) && !how.rows_bf16
                                      ? values.steps[static_cast<std::size_t>(j)]
                                      : std::abs(x);
      row.out[at] += p * x;
      row.bound[at] += how.least_weights * rounded_part;
      // Two scores' errors meet in a weight; exp and the running sums cost a few units more.
      row.bound[at] +=
          p * (how.weights * rounded_part +
               (2 * score_error + 64 * u + static_cast<double>(end - begin) * u) * span);
    }
  }
  return row;
}

}  // namespace nibble::test
