// Ops that are put off until one behind them runs, so that the backend may do several at once
// (ops/chain.h).
#pragma once

#include <array>
#include <initializer_list>

#include "backends/backend.h"
#include "model/model.h"

namespace nibble {

// Where a result goes: instead of what `data` holds, or added to it.
struct Output {
  float* data = nullptr;
  bool accumulate = false;
};

// y [rows, out] of one of several linears of one x.
struct LinearTarget {
  const Linear& linear;
  Output y;
};

NormArgs norm_args(const NormSpec& spec, const Norm& norm, const float* x, std::int64_t rows,
                   std::int64_t cols, float* y);

// What is added must go on where the op before it ended; what lies between them is lost to everyone
// else, unless run() comes first.
class OpChain {
 public:
  explicit OpChain(Backend& backend) : backend_(backend) {}
  OpChain(const OpChain&) = delete;
  OpChain& operator=(const OpChain&) = delete;

  void add(const NormArgs& args) { links_[link_count_++] = args; }
  void add(const AttentionArgs& args) { links_[link_count_++] = args; }
  void add(const ActivationArgs& args) { links_[link_count_++] = args; }
  // Of x [rows, in]; y = x * weight^T + bias. With products of low rank they run at once.
  void add(std::initializer_list<LinearTarget> targets, const float* x, std::int64_t rows);
  // All that was added.
  void run();

 private:
  static constexpr std::size_t kMostLinks = 5;
  static constexpr std::size_t kMostCalls = 6;

  Backend& backend_;
  std::array<ChainLink, kMostLinks> links_;
  std::size_t link_count_ = 0;
  std::array<LinearArgs, kMostCalls> calls_;
  std::size_t call_count_ = 0;
};

}  // namespace nibble
