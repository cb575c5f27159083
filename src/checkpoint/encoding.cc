#include "checkpoint/encoding.h"

#include <algorithm>

namespace nibble {

std::size_t StoredTensor::byte_size() const {
  return static_cast<std::size_t>(element_count(shape)) * dtype_size(dtype);
}

const std::vector<const WeightEncoding*>& weight_encodings() {
  static const std::vector<const WeightEncoding*> encodings = {
      &compressed_tensors_encoding(), &nibble_encoding(), &gptq_encoding(), &gptq_v2_encoding(),
      &awq_encoding()};
  return encodings;
}

const WeightEncoding& choose_encoding(const std::vector<QuantizedModule>& modules) {
  std::string reasons;
  for (const WeightEncoding* encoding : weight_encodings()) {
    const auto refused = std::ranges::find_if(
        modules, [&](const QuantizedModule& m) { return !encoding->why_not(*m.format).empty(); });
    if (refused == modules.end()) return *encoding;
    reasons += fmt::format("; {}: {}", encoding->convention(), encoding->why_not(*refused->format));
  }
  fail(ErrorKind::kUnsupported, "no convention can store these formats{}", reasons);
}

bool compressed_tensors_can_say(const Format& format) {
  return compressed_tensors_encoding().why_not(format).empty();
}

}  // namespace nibble
