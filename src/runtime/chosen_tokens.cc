#include "runtime/chosen_tokens.h"

#include "base/error.h"

namespace nibble {

ChosenTokens::ChosenTokens(const Model& model, std::int64_t most)
    : model_(model), chosen_(model.backend(), most, 1) {
  static_assert(sizeof(float) == sizeof(std::int32_t));
  const auto bytes = static_cast<std::size_t>(most) * sizeof(std::int32_t);
  for (Way& one : ways_) one.copy = model.backend().memory().make_read_back(bytes);
}

void ChosenTokens::issue(Batch& batch, std::span<const TokenChoice> choices) {
  const std::int64_t count = std::ssize(batch.sequences);
  NIBBLE_CHECK(under_way() < kWays && count <= chosen_.rows());
  auto* const chosen = reinterpret_cast<std::int32_t*>(chosen_.data());
  batch.chosen = chosen;
  batch.chosen_count = last_count_;
  model_.choose_tokens(batch, choices, chosen);
  last_count_ = count;
  Way& next = way(issued_);
  next.count = count;
  next.copy->start(chosen, static_cast<std::size_t>(count) * sizeof(std::int32_t));
  ++issued_;
}

std::span<const std::int32_t> ChosenTokens::receive() {
  NIBBLE_CHECK(under_way() > 0);
  Way& oldest = way(received_++);
  const void* const tokens = oldest.copy->wait();
  return {static_cast<const std::int32_t*>(tokens), static_cast<std::size_t>(oldest.count)};
}

}  // namespace nibble
