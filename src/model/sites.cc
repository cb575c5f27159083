#include "model/sites.h"

#include <cmath>

#include "base/error.h"

namespace nibble {
namespace {

Site make_site(std::string name, SiteKind kind, std::int64_t channels, Producer producer) {
  Site site;
  site.name = std::move(name);
  site.kind = kind;
  site.channels = channels;
  site.producer = std::move(producer);
  return site;
}

// Those that exist, which see `input`.
void add_consumers(Site& site, std::initializer_list<Linear*> linears, const std::string& input) {
  for (Linear* linear : linears) {
    if (!linear->exists()) continue;
    site.consumers.push_back(linear);
    site.inputs.push_back(input);
  }
}

Producer none(std::string why_not) {
  Producer producer;
  producer.why_not = std::move(why_not);
  return producer;
}

// The norm in front of a half of the block, where it can absorb a scale.
Producer norm_producer(const ModelSpec& spec, Norm& norm) {
  if (spec.residual == ResidualForm::kPost || spec.residual == ResidualForm::kPreNormed) {
    return none("the norm's output also feeds the residual");
  }
  if (!spec.norm.has_weight) return none("the norm has no weight");
  Producer producer;
  producer.kind = Producer::Kind::kNorm;
  producer.norm = &norm;
  return producer;
}

Linear& value_module(const AttentionSpec& spec, LayerWeights& weights) {
  if (spec.layout == QkvLayout::kLatent) return weights.kv_b;
  return spec.layout == QkvLayout::kSeparate ? weights.v : weights.qkv;
}

// Rows of v (or of the module that holds it) behind each channel of the attention's output.
Producer value_producer(const AttentionSpec& spec, LayerWeights& weights) {
  Producer producer;
  producer.kind = Producer::Kind::kLinear;
  producer.linear = &value_module(spec, weights);
  const std::int64_t dim = spec.value_dim();
  for (std::int64_t h = 0; h < spec.heads; ++h) {
    const std::int64_t kv_head = h / (spec.heads / spec.kv_heads);
    std::int64_t first = 0;
    switch (spec.layout) {
      case QkvLayout::kSeparate:
        first = kv_head * dim;
        break;
      case QkvLayout::kConcat:
        first = (spec.heads + spec.kv_heads + kv_head) * dim;
        break;
      case QkvLayout::kPerHead:
        first = (3 * h + 2) * dim;
        break;
      case QkvLayout::kLatent:
        first = h * (spec.latent->nope_dim + dim) + spec.latent->nope_dim;
        break;
    }
    for (std::int64_t d = 0; d < dim; ++d) producer.rows.push_back(first + d);
  }
  return producer;
}

// The branch of the feed-forward that stays linear up to its product with the gate.
Producer up_producer(const MlpSpec& spec, MlpWeights& weights) {
  if (!spec.gated) return none("a non-linear activation stands between");
  if (spec.limit > 0 || spec.up_offset != 0) return none("the product is limited and shifted");
  Producer producer;
  producer.kind = Producer::Kind::kLinear;
  producer.linear = spec.concat_gate_up ? &weights.gate_up : &weights.up;
  const std::int64_t rows = weights.down.weight.canonical.cols;
  const std::int64_t first = spec.concat_gate_up ? rows : 0;
  for (std::int64_t j = 0; j < rows; ++j) producer.rows.push_back(first + j);
  return producer;
}

constexpr const char* kMixed = "its input is multiplied by a Hadamard matrix";

Site attn_in_site(const ModelSpec& spec, LayerWeights& weights) {
  Site site =
      make_site("attn_in", SiteKind::kAttnIn, spec.hidden, norm_producer(spec, weights.attn_norm));
  Linear& q = weights.q_a.exists() ? weights.q_a : weights.q;
  add_consumers(site, {&q, &weights.k, &weights.v, &weights.qkv, &weights.kv_a}, site.name);
  return site;
}

// The input of a linear behind a norm that feeds nothing else.
Site latent_site(SiteKind kind, Norm& norm, Linear& consumer) {
  Producer producer;
  producer.kind = Producer::Kind::kNorm;
  producer.norm = &norm;
  Site site = make_site(to_string(kind), kind, consumer.weight.canonical.cols, std::move(producer));
  add_consumers(site, {&consumer}, site.name);
  return site;
}

Site attn_out_site(const ModelSpec& spec, LayerWeights& weights) {
  Site site = make_site(
      "attn_out", SiteKind::kAttnOut, spec.attention.heads * spec.attention.value_dim(),
      weights.o.input_hadamard > 0 ? none(kMixed) : value_producer(spec.attention, weights));
  add_consumers(site, {&weights.o}, site.name);
  return site;
}

Site mlp_in_site(const ModelSpec& spec, LayerWeights& weights) {
  Site site =
      make_site("mlp_in", SiteKind::kMlpIn, spec.hidden, norm_producer(spec, weights.mlp_norm));
  const auto add = [&](MlpWeights& mlp, const std::string& input) {
    add_consumers(site, {&mlp.gate, &mlp.up, &mlp.gate_up}, input);
  };
  add(weights.mlp, site.name);
  for (std::size_t e = 0; e < weights.experts.size(); ++e) {
    add(weights.experts[e], site.name + "." + std::to_string(e));
  }
  add(weights.shared, site.name);
  if (weights.router.exists()) site.compensated.push_back(&weights.router);
  return site;
}

Site mlp_down_site(const ModelSpec& spec, MlpWeights& weights, const std::string& suffix) {
  Site site =
      make_site("mlp_down" + suffix, SiteKind::kMlpDown, weights.down.weight.canonical.cols,
                weights.down.input_hadamard > 0 ? none(kMixed) : up_producer(spec.mlp, weights));
  add_consumers(site, {&weights.down}, site.name);
  return site;
}

// The F32 values of a weight that may be changed in place.
constexpr std::int64_t kRowGrain = 16;  // rows of a weight that are worth a task

float* mutable_values(Linear& linear) {
  QuantTensor& weight = linear.weight.canonical;
  NIBBLE_CHECK(weight.format->is_float() && weight.planes[0].dtype() == DType::kF32);
  linear.weight.packed = nullptr;  // made from the old values
  return weight.planes[0].mutable_data<float>();
}

void check_scales(const Site& site, std::span<const float> s) {
  if (site.producer.kind == Producer::Kind::kNone) {
    fail(ErrorKind::kUsage, "site {} cannot be smoothed: {}", site.name, site.producer.why_not);
  }
  if (static_cast<std::int64_t>(s.size()) != site.channels) {
    fail(ErrorKind::kUsage, "site {} has {} channels, not {}", site.name, site.channels, s.size());
  }
  for (const float value : s) {
    if (!(value > 0) || !std::isfinite(value)) {
      fail(ErrorKind::kUsage, "site {}: a scale of {}", site.name, value);
    }
  }
}

void divide_norm(const NormSpec& spec, Norm& norm, std::span<const float> s) {
  float* weight = norm.weight.mutable_data<float>();
  for (std::size_t j = 0; j < s.size(); ++j) {
    weight[j] = (spec.weight_offset + weight[j]) / s[j] - spec.weight_offset;
  }
  if (norm.bias.empty()) return;
  float* bias = norm.bias.mutable_data<float>();
  for (std::size_t j = 0; j < s.size(); ++j) bias[j] /= s[j];
}

// For each row of a producer the scale of its channels; 1 where it has none.
std::vector<float> row_divisors(const Producer& producer, std::span<const float> s) {
  std::vector<float> divisors(static_cast<std::size_t>(producer.linear->weight.canonical.rows));
  for (std::size_t j = 0; j < s.size(); ++j) {
    float& divisor = divisors[static_cast<std::size_t>(producer.rows[j])];
    if (divisor != 0 && divisor != s[j]) {
      fail(ErrorKind::kUsage, "channels that share row {} of {} have scales {} and {}",
           producer.rows[j], producer.linear->module, divisor, s[j]);
    }
    divisor = s[j];
  }
  std::ranges::replace(divisors, 0.0f, 1.0f);
  return divisors;
}

void divide_rows(Linear& linear, std::span<const float> divisors, ThreadPool& pool) {
  const std::int64_t cols = linear.weight.canonical.cols;
  float* values = mutable_values(linear);
  const auto rows = static_cast<std::int64_t>(divisors.size());
  pool.parallel_for(rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float divisor = divisors[static_cast<std::size_t>(r)];
      if (divisor == 1) continue;
      for (std::int64_t c = 0; c < cols; ++c) values[r * cols + c] /= divisor;
    }
  });
}

void divide_bias(Linear& linear, std::span<const float> divisors) {
  if (linear.bias.empty()) return;
  float* const bias = linear.bias.mutable_data<float>();
  for (std::size_t r = 0; r < divisors.size(); ++r) bias[r] /= divisors[r];
}

void multiply_columns(Linear& linear, std::span<const float> s, ThreadPool& pool) {
  float* const values = mutable_values(linear);
  const auto cols = static_cast<std::int64_t>(s.size());
  const std::int64_t rows = linear.weight.canonical.rows;
  pool.parallel_for(rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) {
        values[r * cols + c] *= s[static_cast<std::size_t>(c)];
      }
    }
  });
}

void divide_rows_later(Scaling& scaling, std::vector<float> divisors) {
  NIBBLE_CHECK(scaling.divisors.empty());
  scaling.divisors = std::move(divisors);
}

void multiply_columns_later(Scaling& scaling, std::span<const float> s) {
  NIBBLE_CHECK(scaling.factors.empty() && scaling.divisors.empty());
  scaling.factors.assign(s.begin(), s.end());
}

}  // namespace

std::string to_string(SiteKind kind) {
  switch (kind) {
    case SiteKind::kAttnIn:
      return "attn_in";
    case SiteKind::kQueryLatent:
      return "query_latent";
    case SiteKind::kKeyLatent:
      return "key_latent";
    case SiteKind::kAttnOut:
      return "attn_out";
    case SiteKind::kMlpIn:
      return "mlp_in";
    case SiteKind::kMlpDown:
      return "mlp_down";
  }
  return "";
}

std::vector<Site> sites(const ModelSpec& spec, LayerWeights& weights) {
  std::vector<Site> result;
  result.push_back(attn_in_site(spec, weights));
  if (weights.q_a.exists()) {
    result.push_back(latent_site(SiteKind::kQueryLatent, weights.q_a_norm, weights.q));
  }
  if (weights.kv_b.exists()) {
    result.push_back(latent_site(SiteKind::kKeyLatent, weights.kv_a_norm, weights.kv_b));
  }
  result.push_back(attn_out_site(spec, weights));
  result.push_back(mlp_in_site(spec, weights));
  if (weights.mlp.down.exists()) result.push_back(mlp_down_site(spec, weights.mlp, ""));
  for (std::size_t e = 0; e < weights.experts.size(); ++e) {
    result.push_back(mlp_down_site(spec, weights.experts[e], "." + std::to_string(e)));
  }
  if (weights.shared.down.exists()) {
    result.push_back(mlp_down_site(spec, weights.shared, ".shared"));
  }
  return result;
}

void apply_smoothing(const ModelSpec& spec, Site& site, std::span<const float> s, ThreadPool& pool,
                     Scalings* later) {
  check_scales(site, s);
  if (site.producer.kind == Producer::Kind::kNorm) {
    divide_norm(spec.norm, *site.producer.norm, s);
  } else {
    Linear& linear = *site.producer.linear;
    std::vector<float> divisors = row_divisors(site.producer, s);
    divide_bias(linear, divisors);
    if (later == nullptr) {
      divide_rows(linear, divisors, pool);
    } else {
      divide_rows_later((*later)[&linear], std::move(divisors));
    }
  }
  for (const std::vector<Linear*>* readers : {&site.consumers, &site.compensated}) {
    for (Linear* linear : *readers) {
      if (later == nullptr) {
        multiply_columns(*linear, s, pool);
      } else {
        multiply_columns_later((*later)[linear], s);
      }
    }
  }
}

}  // namespace nibble
