// From an encoder's last hidden state to one vector for a text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "base/json.h"
#include "model/model.h"

namespace nibble {

enum class Pooling { kMean, kCls };

struct PoolingRule {
  Pooling pooling = Pooling::kMean;  // of all tokens, or the first one alone
  bool normalize = true;             // to a Euclidean norm of 1
  std::int64_t max_tokens = 0;       // that the vectors were trained with; 0: not said
};

// What sentence-transformers' files say: `modules` is modules.json, and `config_of` gives the JSON
// of a file named relative to it. kCorrupt for what is none, kUnsupported for other poolings and
// for modules behind them that change the vector.
PoolingRule read_pooling(const Json& modules,
                         const std::function<Json(const std::string& name)>& config_of);
// The rule of a checkpoint's directory; the default where it has no modules.json.
PoolingRule pooling_of(const std::filesystem::path& checkpoint);

// Hidden states [rows, cols] of one text -> [cols]. Sums in float64, in the order of the rows.
void pool_rows(Pooling pooling, const float* hidden, std::int64_t rows, std::int64_t cols,
               float* out);

}  // namespace nibble
