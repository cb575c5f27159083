// A weight source whose block linears are changed on their way to the model.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "formats/weight_source.h"

namespace nibble::test {

class ModifiedSource : public WeightSource {
 public:
  // Gets the decoded weight [rows, cols] and returns what the model shall have instead.
  using Change = std::function<QuantTensor(const std::string& module, std::vector<float> weight,
                                           std::int64_t rows, std::int64_t cols)>;

  // Keeps a reference to `source`.
  ModifiedSource(const WeightSource& source, Change change)
      : source_(source), change_(std::move(change)) {}

  bool has(const std::string& name) const override { return source_.has(name); }
  Tensor tensor(const std::string& name) const override { return source_.tensor(name); }
  std::vector<std::string> names() const override { return source_.names(); }
  bool has_linear(const std::string& module) const override { return source_.has_linear(module); }
  QuantTensor linear(const std::string& module) const override {
    const QuantTensor stored = source_.linear(module);
    if (module.find(".layers.") == std::string::npos) return stored;  // embedding, head
    std::vector<float> weight(static_cast<std::size_t>(stored.rows * stored.cols));
    decode_all(stored, weight.data());
    return change_(module, std::move(weight), stored.rows, stored.cols);
  }

 private:
  const WeightSource& source_;
  Change change_;
};

// Every block linear times a factor, in float32.
inline ModifiedSource::Change scaled(float factor) {
  return [factor](const std::string&, std::vector<float> weight, std::int64_t rows,
                  std::int64_t cols) {
    for (float& w : weight) w *= factor;
    return dense(from_float(weight.data(), DType::kF32, {rows, cols}));
  };
}

}  // namespace nibble::test
