// The CPU's backend with chains that leave nothing between their ops, as a device may that keeps it
// in registers. A chain that ops/chain.h does not allow is an error.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "support/wrapped_backend.h"

namespace nibble::test {

class ForgetfulBackend final : public WrappedBackend {
 public:
  using WrappedBackend::WrappedBackend;

  // How often a chain had ops to forget between.
  int forgotten() const { return forgotten_; }

  void run_chain(std::span<const ChainLink> links) override {
    for (std::size_t i = 1; i < links.size(); ++i) expect_follows(links[i - 1], links[i]);
    Backend::run_chain(links);
    for (std::size_t i = 0; i + 1 < links.size(); ++i) {
      for (const Written& written : written_by(links[i])) forget(written);
    }
  }

 private:
  struct Written {
    float* y;
    std::int64_t rows, cols, stride;
  };

  static std::vector<Written> written_by(const ChainLink& link) {
    if (const auto* const calls = std::get_if<std::span<const LinearArgs>>(&link)) {
      std::vector<Written> all;
      for (const LinearArgs& call : *calls) {
        all.push_back({call.y, call.m, call.w->canonical.rows, call.y_stride});
      }
      return all;
    }
    if (const auto* const norm = std::get_if<NormArgs>(&link)) {
      return {{norm->y, norm->rows, norm->cols, norm->y_stride}};
    }
    if (const auto* const attention = std::get_if<AttentionArgs>(&link)) {
      std::int64_t rows = 0;
      for (const AttentionSequence& sequence : attention->sequences) rows += sequence.q_rows;
      return {
          {attention->out, rows, attention->heads * attention->head_dim, attention->out_stride}};
    }
    const auto& activation = std::get<ActivationArgs>(link);
    return {{activation.y, activation.rows, activation.cols, activation.y_stride}};
  }

  static bool of_linears(const ChainLink& link) {
    return std::holds_alternative<std::span<const LinearArgs>>(link);
  }

  void expect_follows(const ChainLink& before, const ChainLink& link) {
    const std::vector<Written> written = written_by(before);
    if (const auto* const calls = std::get_if<std::span<const LinearArgs>>(&link)) {
      const bool reads = std::ranges::all_of(*calls, [&](const LinearArgs& call) {
        return call.x == written[0].y && call.x_stride == written[0].stride &&
               call.m == written[0].rows;
      });
      if (!of_linears(before) && reads) return;
    } else if (const auto* const activation = std::get_if<ActivationArgs>(&link)) {
      const bool two = written.size() == 2 && activation->multiplier == written[1].y;
      const bool one = written.size() == 1;  // whose columns may hold x and multiplier
      if (of_linears(before) && (one || two) && activation->x == written[0].y &&
          activation->rows == written[0].rows) {
        return;
      }
    }
    fail(ErrorKind::kInternal, "chain: an op does not read what the one before it writes");
  }

  void forget(const Written& written) {
    ++forgotten_;
    for (std::int64_t row = 0; row < written.rows; ++row) {
      std::fill_n(written.y + row * written.stride, written.cols,
                  std::numeric_limits<float>::quiet_NaN());
    }
  }

  int forgotten_ = 0;
};

}  // namespace nibble::test
