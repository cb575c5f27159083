// Steps of a forward pass on a tape. Values come from the backend's ops, as those of the ordinary
// forward pass do.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "model/grad/backward.h"
#include "model/grad/tape.h"
#include "model/model.h"

namespace nibble {

// By linear, [rows, cols] of its weight.
using WeightGradients = std::map<const Linear*, std::vector<float>>;

// What the steps share. Not thread-safe, as the backend.
struct GradContext {
  Tape& tape;
  Backend& backend;          // of the host's memory
  WeightGradients& weights;  // added to, for the linears that have an entry
};

GradNode& grad_linear(GradContext& context, const Linear& linear, GradNode& x);
// Rows of norm.weight's length within the rows of x.
GradNode& grad_norm(GradContext& context, const NormSpec& spec, const Norm& norm, GradNode& x,
                    std::int64_t cols);
GradNode& grad_add(GradContext& context, GradNode& a, GradNode& b);
// y[:, j] = x[:, columns[j]]; -1: zeros. A column may be taken more than once.
GradNode& grad_columns(GradContext& context, GradNode& x, std::vector<std::int64_t> columns);
// y[i, :] = x[rows[i], :]
GradNode& grad_rows(GradContext& context, GradNode& x, std::vector<std::int32_t> rows);
// a beside b.
GradNode& grad_beside(GradContext& context, GradNode& a, GradNode& b);
// f(x) * (multiplier + offset); multiplier null: 1.
GradNode& grad_activation(GradContext& context, const ActivationShape& activation, GradNode& x,
                          GradNode* multiplier);

// Rotates `rotary_dim` elements of each head of x [rows, heads * head_dim], from element `first` of
// the head on, by the table of each row's position in its sequence of `length` rows.
struct RotationShape {
  std::int64_t heads = 0, head_dim = 0, first = 0, length = 0;
  const RopeSpec* rope = nullptr;
};
GradNode& grad_rotation(GradContext& context, const RotationShape& shape, GradNode& x);

// shape.rows and the pointers of spans must stay valid until backward().
GradNode& grad_attention(GradContext& context, const AttentionShape& shape, GradNode& q,
                         GradNode& k, GradNode& v);

// Experts chosen by router logits, and their weights [rows, top_k].
struct GradRoute {
  std::vector<std::int32_t> chosen;  // [rows, top_k]
  GradNode* weights = nullptr;
};
GradRoute grad_route(GradContext& context, const MlpSpec& spec, std::span<const float> choice_bias,
                     GradNode& logits);
// sum[rows[i], :] += weights.value[places[i]] * x[i, :]; the gradient of a sum that several of
// these add to is complete when all are recorded.
struct RoutedRows {
  std::vector<std::int32_t> rows;
  std::vector<std::int64_t> places;
};
void grad_add_routed(GradContext& context, GradNode& x, GradNode& weights, RoutedRows routed,
                     GradNode& sum);

}  // namespace nibble
