#include "checkpoint/encoding.h"

#include <algorithm>

#include "checkpoint/hf_directory.h"

namespace nibble {

std::size_t StoredTensor::byte_size() const {
  return static_cast<std::size_t>(element_count(shape)) * dtype_size(dtype);
}

void require_one_format(const std::vector<QuantizedModule>& modules, const char* writer) {
  const FormatPtr& format = modules.front().format;
  for (const QuantizedModule& m : modules) {
    if (m.format->descriptor() == format->descriptor()) continue;
    fail(ErrorKind::kUnsupported, "module '{}' is {}, others are {}; {} has one format a model",
         m.module, m.format->name(), format->name(), writer);
  }
}

void require_linear(const QuantizedModule& module, const char* writer) {
  if (module.linear) return;
  fail(ErrorKind::kUnsupported, "module '{}': {} stores linear layers only", module.module, writer);
}

MeanBits mean_bits(const std::vector<QuantizedModule>& modules) {
  MeanBits mean;
  double bits = 0, weights = 0;
  for (const QuantizedModule& m : modules) {
    const double rate = bits_per_weight(*m.format, m.rows, m.cols);
    if (is_head(m.module)) {
      mean.head = rate;
      continue;
    }
    const double count = static_cast<double>(m.rows) * static_cast<double>(m.cols);
    bits += rate * count;
    weights += count;
  }
  if (weights > 0) mean.layers = bits / weights;
  return mean;
}

const std::vector<const WeightEncoding*>& weight_encodings() {
  static const std::vector<const WeightEncoding*> encodings = {
      &compressed_tensors_encoding(),
      &exl2_encoding(),
      &exl3_encoding(),
      &nibble_encoding(),
      &gptq_encoding(),
      &gptq_v2_encoding(),
      &awq_encoding(),
      &bnb_encoding(),
      &compressed_tensors_typed_encoding()};
  return encodings;
}

namespace {

std::string why_not(const WeightEncoding& encoding, const QuantizedModule& module) {
  const std::string reason = encoding.why_not(*module.format);
  if (!reason.empty() || module.activations == nullptr) return reason;
  return encoding.why_no_activations(module);
}

// Why an encoding cannot say all of the modules.
std::string why_not(const WeightEncoding& encoding, const std::vector<QuantizedModule>& modules) {
  for (const QuantizedModule& module : modules) {
    if (const std::string reason = why_not(encoding, module); !reason.empty()) return reason;
  }
  return "";
}

}  // namespace

const WeightEncoding& choose_encoding(const std::vector<QuantizedModule>& modules) {
  const bool rounds = std::ranges::any_of(
      modules, [](const QuantizedModule& m) { return m.activations != nullptr; });
  const WeightEncoding& typed = compressed_tensors_typed_encoding();
  if (rounds && why_not(typed, modules).empty()) return typed;
  std::string reasons;
  for (const WeightEncoding* encoding : weight_encodings()) {
    const std::string reason = why_not(*encoding, modules);
    if (reason.empty() && encoding != &typed) return *encoding;
    reasons += fmt::format("; {}: {}", encoding->convention(), reason);
  }
  fail(ErrorKind::kUnsupported, "no convention can store these formats{}", reasons);
}

bool compressed_tensors_can_say(const Format& format) {
  return compressed_tensors_encoding().why_not(format).empty();
}

}  // namespace nibble
