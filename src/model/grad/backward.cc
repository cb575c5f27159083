#include "model/grad/backward.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "base/error.h"
#include "ops/route_scores.h"

namespace nibble {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// f(x) and f'(x).
struct Slope {
  double value, slope;
};

Slope gelu_tanh(double x) {
  const double root = std::sqrt(2 / std::numbers::pi);
  const double t = std::tanh(root * (x + 0.044715 * x * x * x));
  const double inner = root * (1 + 3 * 0.044715 * x * x);
  return {0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner};
}

Slope gelu(double x) {
  const double cumulative = 0.5 * (1 + std::erf(x / std::numbers::sqrt2));
  const double density = std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
  return {x * cumulative, cumulative + x * density};
}

// x sigmoid(steepness x)
Slope swish(double x, double steepness) {
  const double s = sigmoid(steepness * x);
  return {x * s, s + steepness * x * s * (1 - s)};
}

Slope slope_of(Activation kind, double x) {
  switch (kind) {
    case Activation::kIdentity:
      return {x, 1};
    case Activation::kRelu:
      return {std::max(x, 0.0), x > 0 ? 1.0 : 0.0};
    case Activation::kSilu:
      return swish(x, 1);
    case Activation::kGelu:
      return gelu(x);
    case Activation::kGeluTanh:
      return gelu_tanh(x);
    case Activation::kGeluQuick:
      return swish(x, 1.702);
    case Activation::kTanh: {
      const double t = std::tanh(x);
      return {t, 1 - t * t};
    }
  }
  fail(ErrorKind::kInternal, "activation {} has no gradient", static_cast<int>(kind));
}

void norm_row(const NormShape& norm, const float* x, const float* dy, float* dx) {
  const auto n = static_cast<double>(norm.cols);
  double mean = 0, squares = 0;
  if (norm.kind == NormKind::kLayer) {
    for (std::int64_t j = 0; j < norm.cols; ++j) mean += static_cast<double>(x[j]);
    mean /= n;
  }
  for (std::int64_t j = 0; j < norm.cols; ++j) {
    const double d = static_cast<double>(x[j]) - mean;
    squares += d * d;
  }
  const double r = 1 / std::sqrt(squares / n + static_cast<double>(norm.eps));
  const auto through_gain = [&](std::int64_t j) {
    const float gain = norm.weight == nullptr ? 1.0f : norm.weight_offset + norm.weight[j];
    return static_cast<double>(gain) * static_cast<double>(dy[j]);
  };
  double sum = 0, along = 0;  // of the gradient, and of it along the normed row
  for (std::int64_t j = 0; j < norm.cols; ++j) {
    sum += through_gain(j);
    along += through_gain(j) * (static_cast<double>(x[j]) - mean) * r;
  }
  if (norm.kind == NormKind::kRms) sum = 0;
  for (std::int64_t j = 0; j < norm.cols; ++j) {
    const double normed = (static_cast<double>(x[j]) - mean) * r;
    dx[j] += static_cast<float>(r * (through_gain(j) - sum / n - normed * along / n));
  }
}

// One key-value head of one sequence, with the query heads that read it.
class HeadGradient {
 public:
  HeadGradient(const AttentionShape& shape, const AttentionValues& values,
               const AttentionGradients& gradients, std::int64_t first_row, std::int64_t kv_head)
      : shape_(shape),
        values_(values),
        gradients_(gradients),
        first_(first_row),
        kv_head_(kv_head),
        keys_(transposed(values.k)),
        vs_(transposed(values.v)),
        p_(static_cast<std::size_t>(shape.length)),
        slopes_(p_.size()),
        ds_(p_.size()) {}

  void run() {
    const std::int64_t group = shape_.heads / shape_.kv_heads;
    for (std::int64_t h = kv_head_ * group; h < (kv_head_ + 1) * group; ++h) {
      for (std::int64_t t = 0; t < shape_.length; ++t) row(h, t);
    }
  }

 private:
  // [head_dim, length] of this head, so that loops over keys are contiguous.
  std::vector<float> transposed(const float* x) const {
    std::vector<float> result(static_cast<std::size_t>(shape_.head_dim * shape_.length));
    for (std::int64_t t = 0; t < shape_.length; ++t) {
      const float* row = x + key_offset(t);
      for (std::int64_t d = 0; d < shape_.head_dim; ++d) {
        result[static_cast<std::size_t>(d * shape_.length + t)] = row[d];
      }
    }
    return result;
  }
  std::int64_t key_offset(std::int64_t t) const {
    return ((first_ + t) * shape_.kv_heads + kv_head_) * shape_.head_dim;
  }

  // out[j] = sum over d of x[d] y[d, j] for keys [begin, end)
  void products(const float* x, const std::vector<float>& y, std::int64_t begin, std::int64_t end,
                float* __restrict out) const {
    std::fill(out + begin, out + end, 0.0f);
    for (std::int64_t d = 0; d < shape_.head_dim; ++d) {
      const float* __restrict row = y.data() + d * shape_.length;
      const float factor = x[d];
      for (std::int64_t j = begin; j < end; ++j) out[j] += factor * row[j];
    }
  }

  // The softmax of row t into p_, and the slopes of its scores by scale * q.k into slopes_.
  void probabilities(std::int64_t h, const float* q, std::int64_t begin, std::int64_t end) {
    products(q, keys_, begin, end, p_.data());
    const bool sink = !shape_.sinks.empty();
    float largest = sink ? shape_.sinks[static_cast<std::size_t>(h)] : -INFINITY;
    for (auto j = static_cast<std::size_t>(begin); std::cmp_less(j, end); ++j) {
      float s = p_[j] * shape_.scale;
      slopes_[j] = shape_.scale;
      if (shape_.softcap > 0) {
        const float t = std::tanh(s / shape_.softcap);
        slopes_[j] *= 1 - t * t;
        s = shape_.softcap * t;
      }
      if (!shape_.alibi_slopes.empty()) {
        s += shape_.alibi_slopes[static_cast<std::size_t>(h)] * static_cast<float>(j);
      }
      p_[j] = s;
      largest = std::max(largest, s);
    }
    double sum = sink ? std::exp(shape_.sinks[static_cast<std::size_t>(h)] - largest) : 0.0;
    for (auto j = static_cast<std::size_t>(begin); std::cmp_less(j, end); ++j) {
      p_[j] = std::exp(p_[j] - largest);
      sum += static_cast<double>(p_[j]);
    }
    for (auto j = static_cast<std::size_t>(begin); std::cmp_less(j, end); ++j) {
      p_[j] = static_cast<float>(static_cast<double>(p_[j]) / sum);
    }
  }

  void row(std::int64_t h, std::int64_t t) {
    const std::int64_t end = shape_.causal ? t + 1 : shape_.length;
    const std::int64_t begin =
        shape_.window > 0 ? std::max<std::int64_t>(0, t + 1 - shape_.window) : 0;
    const std::int64_t at = ((first_ + t) * shape_.heads + h) * shape_.head_dim;
    const float* q = values_.q + at;
    const float* dout = values_.dout + at;
    probabilities(h, q, begin, end);
    products(dout, vs_, begin, end, ds_.data());
    double mean = 0;
    for (auto j = static_cast<std::size_t>(begin); std::cmp_less(j, end); ++j) {
      mean += static_cast<double>(p_[j]) * static_cast<double>(ds_[j]);
    }
    for (std::int64_t j = begin; j < end; ++j) {
      const auto i = static_cast<std::size_t>(j);
      const float ds = p_[i] * (ds_[i] - static_cast<float>(mean)) * slopes_[i];
      add(ds, values_.k + key_offset(j), gradients_.q + at);
      add(ds, q, gradients_.k + key_offset(j));
      add(p_[i], dout, gradients_.v + key_offset(j));
    }
  }

  void add(float factor, const float* __restrict x, float* __restrict y) const {
    for (std::int64_t d = 0; d < shape_.head_dim; ++d) y[d] += factor * x[d];
  }

  const AttentionShape& shape_;
  const AttentionValues& values_;
  const AttentionGradients& gradients_;
  std::int64_t first_, kv_head_;
  std::vector<float> keys_, vs_;
  std::vector<float> p_, slopes_, ds_;  // of the row at hand
};

}  // namespace

void norm_backward(const NormShape& norm, const float* x, const float* dy, float* dx,
                   ThreadPool& pool) {
  pool.parallel_for(norm.rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      norm_row(norm, x + row * norm.cols, dy + row * norm.cols, dx + row * norm.cols);
    }
  });
}

void activation_backward(const ActivationShape& activation, std::int64_t count, const float* x,
                         const float* multiplier, const float* dy, float* dx, float* dmultiplier) {
  const double limit = static_cast<double>(activation.limit);
  for (std::int64_t i = 0; i < count; ++i) {
    double in = static_cast<double>(x[i]);
    const bool held = limit > 0 && in > limit;
    if (held) in = limit;
    const Slope f = slope_of(activation.kind, in);
    double factor = 1;
    if (multiplier != nullptr) {
      const double m = static_cast<double>(multiplier[i]);
      const bool m_held = limit > 0 && std::abs(m) > limit;
      factor = (m_held ? std::copysign(limit, m) : m) +
               static_cast<double>(activation.multiplier_offset);
      if (!m_held) dmultiplier[i] += static_cast<float>(f.value * static_cast<double>(dy[i]));
    }
    if (!held) dx[i] += static_cast<float>(f.slope * factor * static_cast<double>(dy[i]));
  }
}

void attention_backward(const AttentionShape& shape, const AttentionValues& values,
                        const AttentionGradients& gradients, ThreadPool& pool) {
  NIBBLE_CHECK(shape.length > 0 && shape.rows % shape.length == 0);
  pool.parallel_for(shape.rows / shape.length * shape.kv_heads, 1,
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t task = begin; task < end; ++task) {
                        const std::int64_t first = task / shape.kv_heads * shape.length;
                        HeadGradient(shape, values, gradients, first, task % shape.kv_heads).run();
                      }
                    });
}

void route_backward(const MoeRouteArgs& args, const float* dweights, float* dlogits) {
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const std::vector<double> scores = route_scores(args, args.logits + row * args.experts);
    const std::int32_t* chosen = args.chosen + row * args.top_k;
    const float* dw = dweights + row * args.top_k;
    const auto scale = static_cast<double>(args.scale);
    double sum = 0, along = 0;
    for (std::int64_t k = 0; k < args.top_k; ++k) {
      sum += scores[static_cast<std::size_t>(chosen[k])];
      along += scores[static_cast<std::size_t>(chosen[k])] * static_cast<double>(dw[k]);
    }
    std::vector<double> dscores(scores.size(), 0.0);
    for (std::int64_t k = 0; k < args.top_k; ++k) {
      const double d = static_cast<double>(dw[k]) * scale;
      dscores[static_cast<std::size_t>(chosen[k])] =
          args.renormalize ? d / sum - scale * along / (sum * sum) : d;
    }
    double mean = 0;
    for (std::size_t e = 0; e < scores.size(); ++e) mean += scores[e] * dscores[e];
    if (args.score == RouteScore::kSigmoid) mean = 0;
    for (std::size_t e = 0; e < scores.size(); ++e) {
      const double slope = args.score == RouteScore::kSigmoid ? 1 - scores[e] : 1;
      dlogits[row * args.experts + static_cast<std::int64_t>(e)] +=
          static_cast<float>(scores[e] * slope * (dscores[e] - mean));
    }
  }
}

}  // namespace nibble
