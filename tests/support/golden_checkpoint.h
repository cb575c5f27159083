// The golden checkpoints of other tools, and the values that those give them.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/container/safetensors.h"
#include "support/test_data.h"

namespace nibble::test {

inline std::filesystem::path golden_checkpoint(const std::string& name) {
  return source_dir() / "tests/golden/checkpoint" / name;
}

struct GoldenWeight {
  std::string module;
  std::vector<float> ours, theirs;
};

// Every weight of expected.safetensors, as we decode it and as it stands there.
inline std::vector<GoldenWeight> golden_weights(const std::string& name) {
  const auto checkpoint = open_checkpoint(golden_checkpoint(name));
  const SafetensorsFile expected(golden_checkpoint(name) / "expected.safetensors");
  std::vector<GoldenWeight> weights;
  for (const SafetensorsEntry& entry : expected.entries()) {
    GoldenWeight& golden = weights.emplace_back();
    golden.module = entry.name.substr(0, entry.name.rfind('.'));
    const QuantTensor weight = checkpoint->linear(golden.module);
    const Tensor values = expected.tensor(entry.name);
    EXPECT_EQ((Shape{weight.rows, weight.cols}), values.shape()) << entry.name;
    golden.ours.resize(static_cast<std::size_t>(weight.rows * weight.cols));
    golden.theirs.resize(static_cast<std::size_t>(values.elements()));
    decode_all(weight, golden.ours.data());
    to_float(values, golden.theirs.data());
  }
  EXPECT_FALSE(weights.empty()) << name;
  return weights;
}

}  // namespace nibble::test
