#include "model/grad/grad_ops.h"

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "model/layers/layer_context.h"
#include "model/layers/mlp.h"
#include "model/rope.h"

namespace nibble {
namespace {

std::vector<float> transposed(const float* x, std::int64_t rows, std::int64_t cols) {
  std::vector<float> result(static_cast<std::size_t>(rows * cols));
  constexpr std::int64_t kTile = 32;
  for (std::int64_t r0 = 0; r0 < rows; r0 += kTile) {
    for (std::int64_t c0 = 0; c0 < cols; c0 += kTile) {
      for (std::int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) {
        for (std::int64_t c = c0; c < std::min(cols, c0 + kTile); ++c) {
          result[static_cast<std::size_t>(c * rows + r)] = x[r * cols + c];
        }
      }
    }
  }
  return result;
}

// y [m, n] += x [m, k] b [n, k]^T
void add_product(Backend& backend, const std::vector<float>& x, const std::vector<float>& b,
                 std::int64_t k, std::vector<float>& y) {
  const auto n = static_cast<std::int64_t>(b.size()) / k;
  const LinearWeight weight = backend.prepare(dense(from_float(b.data(), DType::kF32, {n, k})));
  LinearArgs args;
  args.x = x.data();
  args.x_stride = k;
  args.m = static_cast<std::int64_t>(x.size()) / k;
  args.w = &weight;
  args.y = y.data();
  args.y_stride = n;
  args.accumulate = true;
  backend.run(args);
}

void add_to(std::vector<float>& y, const std::vector<float>& x) {
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += x[i];
}

HeadView<float> heads_of(std::vector<float>& values, std::int64_t cols, std::int64_t head_dim) {
  return {values.data(), cols, head_dim};
}

HeadView<const void> key_view(const GradNode& node, std::int64_t row, std::int64_t head_dim) {
  constexpr std::int64_t kBytes = sizeof(float);
  return {node.value.data() + row * node.cols, node.cols * kBytes, head_dim * kBytes};
}

}  // namespace

GradNode& grad_linear(GradContext& context, const Linear& linear, GradNode& x) {
  const QuantTensor& weight = linear.weight.canonical;
  GradNode& y = context.tape.make(x.rows, weight.rows);
  run_linear(linear, x.value.data(), x.rows, {y.value.data()}, context.backend);
  context.tape.record(y, [&context, &linear, &x, &y] {
    const QuantTensor& w = linear.weight.canonical;
    add_product(context.backend, y.grad, transposed(w.planes[0].data<float>(), w.rows, w.cols),
                w.rows, gradient_of(x));
    const auto wanted = context.weights.find(&linear);
    if (wanted == context.weights.end()) return;
    add_product(context.backend, transposed(y.grad.data(), y.rows, y.cols),
                transposed(x.value.data(), x.rows, x.cols), x.rows, wanted->second);
  });
  return y;
}

GradNode& grad_norm(GradContext& context, const NormSpec& spec, const Norm& norm, GradNode& x,
                    std::int64_t cols) {
  GradNode& y = context.tape.make(x.rows, x.cols);
  const std::int64_t rows = x.rows * x.cols / cols;
  run_norm(spec, norm, x.value.data(), rows, cols, y.value.data(), context.backend);
  const NormShape shape{
      spec.kind,          rows,    cols, norm.weight.empty() ? nullptr : norm.weight.data<float>(),
      spec.weight_offset, spec.eps};
  context.tape.record(y, [&context, shape, &x, &y] {
    norm_backward(shape, x.value.data(), y.grad.data(), gradient_of(x).data(),
                  context.backend.pool());
  });
  return y;
}

GradNode& grad_add(GradContext& context, GradNode& a, GradNode& b) {
  GradNode& y = context.tape.make(a.rows, a.cols);
  y.value = a.value;
  add_to(y.value, b.value);
  context.tape.record(y, [&a, &b, &y] {
    add_to(gradient_of(a), y.grad);
    add_to(gradient_of(b), y.grad);
  });
  return y;
}

GradNode& grad_columns(GradContext& context, GradNode& x, std::vector<std::int64_t> columns) {
  GradNode& y = context.tape.make(x.rows, std::ssize(columns));
  const auto for_each = [columns = std::move(columns), rows = x.rows, width = x.cols](auto body) {
    std::size_t at = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
      for (const std::int64_t column : columns) {
        if (column >= 0) body(at, static_cast<std::size_t>(row * width + column));
        ++at;
      }
    }
  };
  for_each([&](std::size_t to, std::size_t from) { y.value[to] = x.value[from]; });
  context.tape.record(y, [for_each, &x, &y] {
    std::vector<float>& dx = gradient_of(x);
    for_each([&](std::size_t to, std::size_t from) { dx[from] += y.grad[to]; });
  });
  return y;
}

GradNode& grad_rows(GradContext& context, GradNode& x, std::vector<std::int32_t> rows) {
  GradNode& y = context.tape.make(std::ssize(rows), x.cols);
  for (std::int64_t i = 0; i < y.rows; ++i) {
    std::copy_n(x.value.data() + rows[static_cast<std::size_t>(i)] * x.cols, x.cols,
                y.value.data() + i * x.cols);
  }
  context.tape.record(y, [rows = std::move(rows), &x, &y] {
    std::vector<float>& dx = gradient_of(x);
    for (std::int64_t i = 0; i < y.rows; ++i) {
      float* to = dx.data() + rows[static_cast<std::size_t>(i)] * x.cols;
      for (std::int64_t c = 0; c < x.cols; ++c)
        to[c] += y.grad[static_cast<std::size_t>(i * x.cols + c)];
    }
  });
  return y;
}

GradNode& grad_beside(GradContext& context, GradNode& a, GradNode& b) {
  GradNode& y = context.tape.make(a.rows, a.cols + b.cols);
  for (std::int64_t row = 0; row < y.rows; ++row) {
    float* to = y.value.data() + row * y.cols;
    std::copy_n(a.value.data() + row * a.cols, a.cols, to);
    std::copy_n(b.value.data() + row * b.cols, b.cols, to + a.cols);
  }
  context.tape.record(y, [&a, &b, &y] {
    std::vector<float>& da = gradient_of(a);
    std::vector<float>& db = gradient_of(b);
    for (std::int64_t row = 0; row < y.rows; ++row) {
      const float* from = y.grad.data() + row * y.cols;
      for (std::int64_t c = 0; c < a.cols; ++c)
        da[static_cast<std::size_t>(row * a.cols + c)] += from[c];
      for (std::int64_t c = 0; c < b.cols; ++c) {
        db[static_cast<std::size_t>(row * b.cols + c)] += from[a.cols + c];
      }
    }
  });
  return y;
}

GradNode& grad_activation(GradContext& context, const ActivationShape& activation, GradNode& x,
                          GradNode* multiplier) {
  GradNode& y = context.tape.make(x.rows, x.cols);
  ActivationArgs args;
  args.kind = activation.kind;
  args.limit = activation.limit;
  args.multiplier_offset = activation.multiplier_offset;
  args.x = x.value.data();
  args.rows = x.rows;
  args.cols = args.x_stride = args.multiplier_stride = args.y_stride = x.cols;
  if (multiplier != nullptr) args.multiplier = multiplier->value.data();
  args.y = y.value.data();
  context.backend.run(args);
  context.tape.record(y, [&context, activation, &x, multiplier, &y] {
    float* dx = gradient_of(x).data();
    float* dm = multiplier == nullptr ? nullptr : gradient_of(*multiplier).data();
    const float* m = multiplier == nullptr ? nullptr : multiplier->value.data();
    context.backend.pool().parallel_for(
        static_cast<std::int64_t>(x.value.size()), 4096, [&](std::int64_t begin, std::int64_t end) {
          activation_backward(activation, end - begin, x.value.data() + begin,
                              m == nullptr ? nullptr : m + begin, y.grad.data() + begin, dx + begin,
                              dm == nullptr ? nullptr : dm + begin);
        });
  });
  return y;
}

GradNode& grad_rotation(GradContext& context, const RotationShape& shape, GradNode& x) {
  GradNode& y = context.tape.make(x.rows, x.cols);
  y.value = x.value;
  const RopeTable table = rope_table(*shape.rope, shape.length);
  std::vector<std::int32_t> positions(static_cast<std::size_t>(x.rows));
  for (std::size_t row = 0; row < positions.size(); ++row) {
    positions[row] = static_cast<std::int32_t>(static_cast<std::int64_t>(row) % shape.length);
  }
  // The transposed rotation is the one by the opposite angles.
  const auto rotate = [&backend = context.backend, shape, positions = std::move(positions),
                       scale = table.scale](std::vector<float>& values, std::int64_t cols,
                                            const std::vector<float>& frequencies) {
    RopeArgs args;
    args.x = heads_of(values, cols, shape.head_dim);
    args.x.data += shape.first;
    args.rows = std::ssize(positions);
    args.heads = shape.heads;
    args.rotary_dim = 2 * std::ssize(frequencies);  // of an odd number one element more
    args.interleaved = shape.rope->interleaved;
    args.inv_freq = frequencies;
    args.positions = positions;
    args.scale = scale;
    backend.run(args);
  };
  rotate(y.value, y.cols, table.inv_freq);
  std::vector<float> opposite = table.inv_freq;
  for (float& frequency : opposite) frequency = -frequency;
  context.tape.record(y, [rotate, opposite = std::move(opposite), &x, &y] {
    std::vector<float> turned = y.grad;
    rotate(turned, y.cols, opposite);
    add_to(gradient_of(x), turned);
  });
  return y;
}

GradNode& grad_attention(GradContext& context, const AttentionShape& shape, GradNode& q,
                         GradNode& k, GradNode& v) {
  GradNode& y = context.tape.make(q.rows, q.cols);
  std::vector<AttentionSequence> sequences;
  for (std::int64_t begin = 0; begin < shape.rows; begin += shape.length) {
    AttentionSequence sequence;
    sequence.q_begin = begin;
    sequence.q_rows = sequence.kv_rows = shape.length;
    sequence.k = key_view(k, begin, shape.head_dim);
    sequence.v = key_view(v, begin, shape.head_dim);
    sequences.push_back(sequence);
  }
  AttentionArgs args;
  args.q = {q.value.data(), q.cols, shape.head_dim};
  args.sequences = sequences;
  args.heads = shape.heads;
  args.kv_heads = shape.kv_heads;
  args.head_dim = shape.head_dim;
  args.causal = shape.causal;
  args.window = shape.window;
  args.scale = shape.scale;
  args.softcap = shape.softcap;
  args.alibi_slopes = shape.alibi_slopes;
  args.sinks = shape.sinks;
  args.out = y.value.data();
  args.out_stride = y.cols;
  context.backend.run(args);
  context.tape.record(y, [&context, shape, &q, &k, &v, &y] {
    attention_backward(shape, {q.value.data(), k.value.data(), v.value.data(), y.grad.data()},
                       {gradient_of(q).data(), gradient_of(k).data(), gradient_of(v).data()},
                       context.backend.pool());
  });
  return y;
}

GradRoute grad_route(GradContext& context, const MlpSpec& spec, std::span<const float> choice_bias,
                     GradNode& logits) {
  GradRoute route;
  route.chosen.resize(static_cast<std::size_t>(logits.rows * spec.top_k));
  GradNode& weights = context.tape.make(logits.rows, spec.top_k);
  route.weights = &weights;
  MoeRouteArgs args = route_args(spec, choice_bias, logits.value.data(), logits.rows);
  args.chosen = route.chosen.data();
  args.weights = weights.value.data();
  context.backend.run(args);
  context.tape.record(weights, [args, chosen = route.chosen, &logits, &weights]() mutable {
    args.chosen = chosen.data();
    route_backward(args, weights.grad.data(), gradient_of(logits).data());
  });
  return route;
}

void grad_add_routed(GradContext& context, GradNode& x, GradNode& weights, RoutedRows routed,
                     GradNode& sum) {
  for (std::int64_t i = 0; i < x.rows; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const float weight = weights.value[static_cast<std::size_t>(routed.places[at])];
    const float* from = x.value.data() + i * x.cols;
    float* to = sum.value.data() + routed.rows[at] * sum.cols;
    for (std::int64_t c = 0; c < x.cols; ++c) to[c] += weight * from[c];
  }
  context.tape.record(sum, [routed = std::move(routed), &x, &weights, &sum] {
    std::vector<float>& dx = gradient_of(x);
    std::vector<float>& dw = gradient_of(weights);
    for (std::int64_t i = 0; i < x.rows; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const auto place = static_cast<std::size_t>(routed.places[at]);
      const float* from = sum.grad.data() + routed.rows[at] * sum.cols;
      double along = 0;
      for (std::int64_t c = 0; c < x.cols; ++c) {
        const auto element = static_cast<std::size_t>(i * x.cols + c);
        along += static_cast<double>(from[c]) * static_cast<double>(x.value[element]);
        dx[element] += weights.value[place] * from[c];
      }
      dw[place] += static_cast<float>(along);
    }
  });
}

}  // namespace nibble
