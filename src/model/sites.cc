#include "model/sites.h"

#include <cmath>

#include "base/error.h"

namespace nibble {
namespace {

std::vector<Linear*> existing(std::initializer_list<Linear*> linears) {
  std::vector<Linear*> result;
  for (Linear* linear : linears) {
    if (linear->exists()) result.push_back(linear);
  }
  return result;
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

// Rows of v (or of the module that holds it) behind each channel of the attention's output.
Producer value_producer(const AttentionSpec& spec, LayerWeights& weights) {
  Producer producer;
  producer.kind = Producer::Kind::kLinear;
  producer.linear = spec.layout == QkvLayout::kSeparate ? &weights.v : &weights.qkv;
  const std::int64_t dim = spec.head_dim;
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
    }
    for (std::int64_t d = 0; d < dim; ++d) producer.rows.push_back(first + d);
  }
  return producer;
}

// The branch of the feed-forward that stays linear up to its product with the gate.
Producer up_producer(const MlpSpec& spec, MlpWeights& weights) {
  if (!spec.gated) return none("a non-linear activation stands between");
  Producer producer;
  producer.kind = Producer::Kind::kLinear;
  producer.linear = spec.concat_gate_up ? &weights.gate_up : &weights.up;
  const std::int64_t first = spec.concat_gate_up ? spec.intermediate : 0;
  for (std::int64_t j = 0; j < spec.intermediate; ++j) producer.rows.push_back(first + j);
  return producer;
}

Site attn_in_site(const ModelSpec& spec, LayerWeights& weights) {
  Site site;
  site.name = "attn_in";
  site.kind = SiteKind::kAttnIn;
  site.consumers = existing({&weights.q, &weights.k, &weights.v, &weights.qkv});
  site.producer = norm_producer(spec, weights.attn_norm);
  site.channels = spec.hidden;
  return site;
}

Site attn_out_site(const ModelSpec& spec, LayerWeights& weights) {
  Site site;
  site.name = "attn_out";
  site.kind = SiteKind::kAttnOut;
  site.consumers = {&weights.o};
  site.producer = value_producer(spec.attention, weights);
  site.channels = spec.attention.heads * spec.attention.head_dim;
  return site;
}

Site mlp_in_site(const ModelSpec& spec, LayerWeights& weights) {
  Site site;
  site.name = "mlp_in";
  site.kind = SiteKind::kMlpIn;
  const auto add = [&](MlpWeights& mlp) {
    for (Linear* linear : existing({&mlp.gate, &mlp.up, &mlp.gate_up})) {
      site.consumers.push_back(linear);
    }
  };
  if (spec.mlp.experts == 0) add(weights.mlp);
  for (MlpWeights& expert : weights.experts) add(expert);
  if (weights.router.exists()) site.compensated.push_back(&weights.router);
  site.producer = norm_producer(spec, weights.mlp_norm);
  site.channels = spec.hidden;
  return site;
}

Site mlp_down_site(const ModelSpec& spec, MlpWeights& weights, const std::string& suffix) {
  Site site;
  site.name = "mlp_down" + suffix;
  site.kind = SiteKind::kMlpDown;
  site.consumers = {&weights.down};
  site.producer = up_producer(spec.mlp, weights);
  site.channels = spec.mlp.intermediate;
  return site;
}

// The F32 values of a weight that may be changed in place.
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

void divide_rows(const Producer& producer, std::span<const float> s) {
  Linear& linear = *producer.linear;
  const std::int64_t cols = linear.weight.canonical.cols;
  std::vector<float> divisors(static_cast<std::size_t>(linear.weight.canonical.rows), 0.0f);
  for (std::size_t j = 0; j < s.size(); ++j) {
    float& divisor = divisors[static_cast<std::size_t>(producer.rows[j])];
    if (divisor != 0 && divisor != s[j]) {
      fail(ErrorKind::kUsage, "channels that share row {} of {} have scales {} and {}",
           producer.rows[j], linear.module, divisor, s[j]);
    }
    divisor = s[j];
  }
  float* values = mutable_values(linear);
  float* bias = linear.bias.empty() ? nullptr : linear.bias.mutable_data<float>();
  for (std::size_t r = 0; r < divisors.size(); ++r) {
    if (divisors[r] == 0) continue;
    float* row = values + static_cast<std::int64_t>(r) * cols;
    for (std::int64_t c = 0; c < cols; ++c) row[c] /= divisors[r];
    if (bias != nullptr) bias[r] /= divisors[r];
  }
}

void multiply_columns(Linear& linear, std::span<const float> s) {
  float* values = mutable_values(linear);
  for (std::int64_t r = 0; r < linear.weight.canonical.rows; ++r) {
    for (const float scale : s) *values++ *= scale;
  }
}

}  // namespace

std::string to_string(SiteKind kind) {
  switch (kind) {
    case SiteKind::kAttnIn:
      return "attn_in";
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
  result.push_back(attn_out_site(spec, weights));
  result.push_back(mlp_in_site(spec, weights));
  if (spec.mlp.experts == 0) {
    result.push_back(mlp_down_site(spec, weights.mlp, ""));
  }
  for (std::size_t e = 0; e < weights.experts.size(); ++e) {
    result.push_back(mlp_down_site(spec, weights.experts[e], "." + std::to_string(e)));
  }
  return result;
}

void apply_smoothing(const ModelSpec& spec, Site& site, std::span<const float> s) {
  check_scales(site, s);
  if (site.producer.kind == Producer::Kind::kNorm) {
    divide_norm(spec.norm, *site.producer.norm, s);
  } else {
    divide_rows(site.producer, s);
  }
  for (Linear* linear : site.consumers) multiply_columns(*linear, s);
  for (Linear* linear : site.compensated) multiply_columns(*linear, s);
}

}  // namespace nibble
