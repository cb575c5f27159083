// Frequencies of rotary and slopes of linear position biases.
#pragma once

#include <vector>

#include "model/spec.h"

namespace nibble {

struct RopeTable {
  std::vector<float> inv_freq;  // [ceil(rotary_dim / 2)]
  float scale = 1;              // attention factor: multiplies sine and cosine
};

// True when the frequencies change with the length of the sequence (dynamic, longrope).
bool depends_on_length(const RopeSpec& spec);

// `length` is the number of tokens of the sequence so far, the current ones included. Every step is
// rounded to float32 where the models' training code does.
//   linear    inv_freq / factor
//   dynamic   base' = base * (factor * length / max - (factor - 1))^(d / (d - 2)) beyond max
//   llama3    low frequencies divided by factor, a linear blend in between
//   yarn      Peng et al., arXiv:2309.00071, eq. 17-23; scale = 0.1 ln(factor) + 1
//   longrope  Ding et al., arXiv:2402.13753; scale = sqrt(1 + ln(factor) / ln(original length))
RopeTable rope_table(const RopeSpec& spec, std::int64_t length);

// The table of a spec that does not depend on the length, which every layer of every step asks for:
// computed once. The reference lasts until the thread has asked for other ones.
const RopeTable& fixed_rope_table(const RopeSpec& spec);

// Slopes of ALiBi (Press et al., arXiv:2108.12409), also for heads that are no power of two.
std::vector<float> alibi_slopes(std::int64_t heads);

}  // namespace nibble
