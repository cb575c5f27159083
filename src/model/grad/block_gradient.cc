#include "model/grad/block_gradient.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "base/error.h"
#include "model/rope.h"

namespace nibble {
namespace {

std::vector<std::int64_t> column_range(std::int64_t begin, std::int64_t count) {
  std::vector<std::int64_t> columns(static_cast<std::size_t>(count));
  std::iota(columns.begin(), columns.end(), begin);
  return columns;
}

// `count` columns from `first` on of each of `heads` blocks that are `stride` apart, each followed
// by zeros up to `width`.
std::vector<std::int64_t> head_columns(std::int64_t heads, std::int64_t stride, std::int64_t first,
                                       std::int64_t count, std::int64_t width) {
  std::vector<std::int64_t> columns;
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t d = 0; d < width; ++d)
      columns.push_back(d < count ? h * stride + first + d : -1);
  }
  return columns;
}

class BlockTape {
 public:
  BlockTape(GradContext& context, const ModelSpec& spec, std::int64_t layer,
            const LayerWeights& weights, std::int64_t length)
      : context_(context),
        spec_(spec),
        attention_(spec.attention),
        layer_(layer),
        weights_(weights),
        length_(length) {
    if (!attention_.windows.empty()) {
      window_ = attention_.windows[static_cast<std::size_t>(layer)];
    }
  }

  GradNode& run(GradNode& h) {
    switch (spec_.residual) {
      case ResidualForm::kPre: {
        GradNode& middle = add(h, attention(norm(weights_.attn_norm, h)));
        return add(middle, mlp(norm(weights_.mlp_norm, middle)));
      }
      case ResidualForm::kPreNormed: {
        GradNode& first = norm(weights_.attn_norm, h);
        GradNode& second = norm(weights_.mlp_norm, add(first, attention(first)));
        return add(second, mlp(second));
      }
      case ResidualForm::kPost: {
        GradNode& middle = norm(weights_.attn_norm, add(h, attention(h)));
        return norm(weights_.mlp_norm, add(middle, mlp(middle)));
      }
      case ResidualForm::kSandwich: {
        GradNode& attended = attention(norm(weights_.attn_norm, h));
        GradNode& middle = add(h, norm(weights_.attn_post_norm, attended));
        GradNode& fed = mlp(norm(weights_.mlp_norm, middle));
        return add(middle, norm(weights_.mlp_post_norm, fed));
      }
      case ResidualForm::kParallel: {
        GradNode& attended = attention(norm(weights_.attn_norm, h));
        GradNode& fed = mlp(norm(weights_.mlp_norm, h));
        return add(add(h, attended), fed);
      }
    }
    fail(ErrorKind::kInternal, "a residual form without a gradient");
  }

 private:
  struct Heads {
    GradNode *q, *k, *v;
  };

  GradNode& norm(const Norm& weights, GradNode& x) {
    return grad_norm(context_, spec_.norm, weights, x, spec_.hidden);
  }
  GradNode& add(GradNode& a, GradNode& b) { return grad_add(context_, a, b); }
  GradNode& linear(const Linear& weights, GradNode& x) { return grad_linear(context_, weights, x); }
  GradNode& columns(GradNode& x, std::vector<std::int64_t> chosen) {
    return grad_columns(context_, x, std::move(chosen));
  }

  GradNode& rotated(GradNode& x, std::int64_t heads, std::int64_t head_dim, std::int64_t first) {
    if (!attention_.rope) return x;
    const RopeSpec& rope =
        window_ > 0 && attention_.window_rope ? *attention_.window_rope : *attention_.rope;
    if (rope.rotary_dim == 0) return x;
    return grad_rotation(context_, {heads, head_dim, first, length_, &rope}, x);
  }

  Heads project(GradNode& x) {
    const std::int64_t dim = attention_.head_dim;
    const std::int64_t q_cols = attention_.heads * dim, kv_cols = attention_.kv_heads * dim;
    if (attention_.layout == QkvLayout::kSeparate) {
      return {&linear(weights_.q, x), &linear(weights_.k, x), &linear(weights_.v, x)};
    }
    GradNode& all = linear(weights_.qkv, x);
    if (attention_.layout == QkvLayout::kConcat) {
      return {&columns(all, column_range(0, q_cols)), &columns(all, column_range(q_cols, kv_cols)),
              &columns(all, column_range(q_cols + kv_cols, kv_cols))};
    }
    const auto part = [&](std::int64_t first) -> GradNode& {
      return columns(all, head_columns(attention_.heads, 3 * dim, first, dim, dim));
    };
    return {&part(0), &part(dim), &part(2 * dim)};
  }

  // LatentProjection (layers/latent.h), rotation included.
  Heads project_latent(GradNode& x) {
    const LatentSpec& latent = *attention_.latent;
    const std::int64_t heads = attention_.heads, dim = attention_.head_dim;
    GradNode* narrow_q = &x;
    if (latent.q_rank > 0) {
      narrow_q = &grad_norm(context_, latent.norm, weights_.q_a_norm, linear(weights_.q_a, x),
                            latent.q_rank);
    }
    GradNode& q = rotated(linear(weights_.q, *narrow_q), heads, dim, latent.nope_dim);
    GradNode& narrow = linear(weights_.kv_a, x);
    GradNode& normed = grad_norm(context_, latent.norm, weights_.kv_a_norm,
                                 columns(narrow, column_range(0, latent.kv_rank)), latent.kv_rank);
    GradNode& shared = rotated(columns(narrow, column_range(latent.kv_rank, latent.rope_dim)), 1,
                               latent.rope_dim, 0);
    GradNode& wide = linear(weights_.kv_b, normed);
    const std::int64_t pair = latent.nope_dim + latent.value_dim;
    std::vector<std::int64_t> keys;  // each head's own part, then what all share
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t d = 0; d < latent.nope_dim; ++d) keys.push_back(h * pair + d);
      for (std::int64_t d = 0; d < latent.rope_dim; ++d) keys.push_back(heads * pair + d);
    }
    return {&q, &columns(grad_beside(context_, wide, shared), std::move(keys)),
            &columns(wide, head_columns(heads, pair, latent.nope_dim, latent.value_dim, dim))};
  }

  Heads project_and_rotate(GradNode& x) {
    if (attention_.latent) return project_latent(x);
    const std::int64_t dim = attention_.head_dim;
    Heads heads = project(x);
    if (attention_.qk_norm) {
      heads.q = &grad_norm(context_, *attention_.qk_norm, weights_.q_norm, *heads.q, dim);
      heads.k = &grad_norm(context_, *attention_.qk_norm, weights_.k_norm, *heads.k, dim);
    }
    heads.q = &rotated(*heads.q, attention_.heads, dim, 0);
    heads.k = &rotated(*heads.k, attention_.kv_heads, dim, 0);
    return heads;
  }

  GradNode& attention(GradNode& x) {
    const Heads heads = project_and_rotate(x);
    AttentionShape shape;
    shape.rows = x.rows;
    shape.length = length_;
    shape.heads = attention_.heads;
    shape.kv_heads = attention_.kv_heads;
    shape.head_dim = attention_.head_dim;
    shape.causal = attention_.causal;
    shape.window = window_;
    shape.scale = attention_.inverse_layer_scale ? attention_.scale / static_cast<float>(layer_ + 1)
                                                 : attention_.scale;
    shape.softcap = attention_.softcap;
    shape.sinks = weights_.sinks;
    if (attention_.alibi) {
      GradNode& slopes = context_.tape.make(1, attention_.heads);  // as long as the steps
      slopes.value = alibi_slopes(attention_.heads);
      shape.alibi_slopes = slopes.value;
    }
    GradNode* attended = &grad_attention(context_, shape, *heads.q, *heads.k, *heads.v);
    if (attention_.value_dim() < attention_.head_dim) {
      attended = &columns(*attended, head_columns(attention_.heads, attention_.head_dim, 0,
                                                  attention_.value_dim(), attention_.value_dim()));
    }
    return linear(weights_.o, *attended);
  }

  GradNode& network(const MlpWeights& weights, GradNode& x) {
    const MlpSpec& spec = spec_.mlp;
    const ActivationShape activation{spec.activation, spec.limit, spec.up_offset};
    if (!spec.gated) {
      return linear(weights.down, grad_activation(context_, {spec.activation, spec.limit, 0},
                                                  linear(weights.up, x), nullptr));
    }
    if (!spec.concat_gate_up) {
      GradNode& gate = linear(weights.gate, x);
      return linear(weights.down,
                    grad_activation(context_, activation, gate, &linear(weights.up, x)));
    }
    const std::int64_t cols = weights.down.weight.canonical.cols;
    GradNode& both = linear(weights.gate_up, x);
    GradNode& gate = columns(both, column_range(0, cols));
    GradNode& up = columns(both, column_range(cols, cols));
    return linear(weights.down, grad_activation(context_, activation, gate, &up));
  }

  GradNode& experts(GradNode& x) {
    const std::int64_t top_k = spec_.mlp.top_k;
    GradRoute route =
        grad_route(context_, spec_.mlp, weights_.choice_bias, linear(weights_.router, x));
    std::vector<RoutedRows> routed(static_cast<std::size_t>(spec_.mlp.experts));
    for (std::size_t i = 0; i < route.chosen.size(); ++i) {
      RoutedRows& expert = routed[static_cast<std::size_t>(route.chosen[i])];
      expert.rows.push_back(static_cast<std::int32_t>(static_cast<std::int64_t>(i) / top_k));
      expert.places.push_back(static_cast<std::int64_t>(i));
    }
    GradNode& sum = context_.tape.make(x.rows, x.cols);
    for (std::size_t e = 0; e < routed.size(); ++e) {
      if (routed[e].rows.empty()) continue;
      GradNode& y = network(weights_.experts[e], grad_rows(context_, x, routed[e].rows));
      grad_add_routed(context_, y, *route.weights, std::move(routed[e]), sum);
    }
    if (!weights_.shared.down.exists()) return sum;
    return add(sum, network(weights_.shared, x));
  }

  GradNode& mlp(GradNode& x) {
    return weights_.experts.empty() ? network(weights_.mlp, x) : experts(x);
  }

  GradContext& context_;
  const ModelSpec& spec_;
  const AttentionSpec& attention_;
  std::int64_t layer_;
  const LayerWeights& weights_;
  std::int64_t length_;
  std::int64_t window_ = 0;
};

}  // namespace

void require_gradients(Backend& backend) {
  if (backend.memory().is_host()) return;
  fail(ErrorKind::kUnsupported,
       "learned rounding: gradients are computed in the host's memory; take --device cpu");
}

GradNode& differentiable_block(GradContext& context, const ModelSpec& spec, std::int64_t layer,
                               const LayerWeights& weights, std::span<const float> hidden,
                               std::int64_t length) {
  GradNode& input =
      context.tape.make(static_cast<std::int64_t>(hidden.size()) / spec.hidden, spec.hidden);
  std::ranges::copy(hidden, input.value.begin());
  NIBBLE_CHECK(length > 0 && input.rows % length == 0);
  return BlockTape(context, spec, layer, weights, length).run(input);
}

}  // namespace nibble
