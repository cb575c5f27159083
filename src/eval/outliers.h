// How much single channels stand out in the inputs of linear layers: what makes a model hard to
// quantize.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/model.h"

namespace nibble {

struct OutlierRow {
  std::int64_t layer = 0;
  std::string site;          // "attn_in", "mlp_down", ... (model/sites.h)
  double absmax = 0;         // largest |x| over all tokens and channels
  double ratio = 0;          // largest channel absmax over the median channel absmax
  std::int64_t channel = 0;  // the channel that holds the largest
};

// One row for each site of each layer, over windows of `context` tokens of the text.
std::vector<OutlierRow> measure_outliers(const ModelSpec& spec, const WeightSource& source,
                                         Backend& backend, std::span<const std::int32_t> ids,
                                         std::int64_t context);

}  // namespace nibble
