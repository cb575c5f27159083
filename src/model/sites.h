// Calibration sites and smoothing pairs, derived from the ModelSpec; nothing is tabulated per
// architecture.
//
// A site is the input of one or more linears that share it. A site can be smoothed when what
// produces its input can absorb a division of each channel by s_j exactly: a norm that feeds
// nothing else, or the rows of a linear with nothing non-linear in between.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "model/model.h"

namespace nibble {

// In the order of the forward pass. The latents are the narrow vectors of latent attention.
enum class SiteKind { kAttnIn, kQueryLatent, kKeyLatent, kAttnOut, kMlpIn, kMlpDown };
std::string to_string(SiteKind kind);  // "attn_in", ...

// What absorbs 1/s for a site.
struct Producer {
  enum class Kind { kNone, kNorm, kLinear } kind = Kind::kNone;
  std::string why_not;       // kNone: the reason
  Norm* norm = nullptr;      // kNorm: weight and bias are divided
  Linear* linear = nullptr;  // kLinear: rows (and bias) are divided
  // kLinear: output row of `linear` that carries channel j of the site, for each j. Several
  // channels may share one row (grouped heads): those channels must get one common s.
  std::vector<std::int64_t> rows;
};

struct Site {
  std::string name;  // as SiteObserver sees it
  SiteKind kind;
  std::vector<Linear*>
      consumers;  // quantized linears that read the site: columns are multiplied by s
  // What each consumer sees, as SiteObserver names it: the site, or the rows of it that the router
  // sends to one expert.
  std::vector<std::string> inputs;
  std::vector<Linear*>
      compensated;  // unquantized readers of the same input (router, experts' siblings):
                    // columns are multiplied by s too, but have no say in s
  Producer producer;
  std::int64_t channels = 0;
};

// What a matrix is to be scaled by (ScaleArgs of ops/args.h): its columns are multiplied, then its
// rows divided. Empty: by nothing.
struct Scaling {
  std::vector<float> factors;   // [cols]
  std::vector<float> divisors;  // [rows]
};
using Scalings = std::map<const Linear*, Scaling>;

// Divides the producer by s and multiplies the readers, in place; the function of the layer stays
// the same up to rounding. The weights must be F32 and owned (load_layer_f32), and prepare_layer()
// must follow before the layer runs again. s holds site.channels values. kUsage when the site has
// no producer, when a value is not positive and finite, or when channels that share a row differ.
// With `later`, only norms and biases change, and what matrices are to be scaled by is added to it:
// for each once its columns, and then once its rows.
void apply_smoothing(const ModelSpec& spec, Site& site, std::span<const float> s, ThreadPool& pool,
                     Scalings* later = nullptr);

// Sites of one loaded layer, in the order of the forward pass. Pointers lead into `weights`.
std::vector<Site> sites(const ModelSpec& spec, LayerWeights& weights);

}  // namespace nibble
