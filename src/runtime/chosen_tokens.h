// Tokens that steps choose, one step after the other: they stay in the backend's memory, where the
// next step finds them, and come to the host meanwhile.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "backends/rows.h"
#include "model/model.h"

namespace nibble {

// Not thread-safe.
class ChosenTokens {
 public:
  // Of at most so many sequences a step. The model must outlive it.
  ChosenTokens(const Model& model, std::int64_t most);

  // Issues a step, which chooses a token for each sequence of the batch. An id of -1 - k stands for
  // the token that the step issued before chooses for its sequence k. At most one step may be under
  // way.
  void issue(Batch& batch, std::span<const TokenChoice> choices);
  // Steps whose tokens were not received.
  std::int64_t under_way() const { return issued_ - received_; }
  // Waits for the oldest of them: its tokens as Model::choose_tokens() gives them, valid until two
  // more steps are issued. When it fails that step is over, too.
  std::span<const std::int32_t> receive();

 private:
  struct Way {
    std::unique_ptr<ReadBack> copy;
    std::int64_t count = 0;
  };
  static constexpr std::int64_t kWays = 2;
  Way& way(std::int64_t step) { return ways_[static_cast<std::size_t>(step % kWays)]; }

  const Model& model_;
  Rows chosen_;  // of the step issued last: integers, as wide as floats
  std::int64_t last_count_ = 0;
  std::array<Way, kWays> ways_;
  std::int64_t issued_ = 0;
  std::int64_t received_ = 0;
};

}  // namespace nibble
