#include "runtime/text_output.h"

#include <utility>

namespace nibble {

TextOutput::TextOutput(const Tokenizer* tokenizer, std::vector<std::string> stop)
    : stop_(std::move(stop)) {
  if (tokenizer != nullptr) decoder_.emplace(*tokenizer);
}

std::string TextOutput::push(std::int32_t id, bool may_stop) {
  if (!decoder_.has_value() || stopped()) return {};
  const std::string piece = decoder_->push(id);
  return may_stop ? stop_.push(piece) : piece;
}

std::string TextOutput::flush() {
  if (!decoder_.has_value() || stopped()) return {};
  const std::string rest = stop_.push(decoder_->flush());
  return rest + stop_.flush();
}

}  // namespace nibble
