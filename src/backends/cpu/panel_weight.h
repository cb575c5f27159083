// Integer weights repacked for byte products; see int8_kernels.h for the layout.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backends/cpu/int8_kernels.h"
#include "backends/packed_store.h"
#include "base/thread_pool.h"
#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cpu {

// Immutable, thread-safe. About as large as the canonical planes.
class PanelWeight final : public PackedWeight {
 public:
  // Null when the layout cannot hold the weight (no integers; columns or groups that are no
  // multiple of kInt8Block). Taken from the slot's store when it is there, and put there otherwise.
  static std::shared_ptr<const PanelWeight> pack(const QuantTensor& weight, ThreadPool& pool,
                                                 const PackedSlot& slot = {});

  const PanelView& view() const { return view_; }

 private:
  PanelWeight() = default;
  void pack_planes(const QuantTensor& weight, ThreadPool& pool,
                   std::span<const PackedPlane> planes);
  void pack_panel(const QuantTensor& weight, std::int64_t panel);
  // Scale and zero point of one row in one group go to place `to`; what is to be subtracted from
  // its codes is returned.
  int pack_numbers(const QuantTensor& weight, std::int64_t row, std::int64_t group,
                   std::int64_t to);
  void clear_numbers(std::int64_t to);
  // shifts: what is to be subtracted from the codes of each group; `codes` points at the row's
  // first byte in the panel.
  void pack_codes_of_row(const QuantTensor& weight, std::int64_t row, std::span<const int> shifts,
                         unsigned char* codes) const;
  std::byte* scale_at(std::int64_t index);

  PanelView view_;
  Tensor codes_;   // [panels, panel_bytes]
  Tensor scales_;  // [panels, groups, kPanelRows]
  Tensor zeros_;   // likewise, of bytes; may be empty
};

// Null when the weight of the call is in no panels.
const PanelWeight* panels_of(const LinearArgs& args);

// Whether it is in panels that the kernels take.
Support panels_fit(const TokenKernels& kernels, const LinearArgs& args);

// The panels of every call.
std::vector<std::int64_t> panel_counts(std::span<const LinearArgs> calls);

// Where the results of rows [begin, ...) of a call go.
PanelOutput panel_output(const LinearArgs& call, std::int64_t begin);

}  // namespace nibble::cpu
