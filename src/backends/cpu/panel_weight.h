// Integer weights repacked for byte products; see int8_kernels.h for the layout.
#pragma once

#include <memory>
#include <vector>

#include "backends/cpu/int8_kernels.h"
#include "base/thread_pool.h"
#include "ops/args.h"

namespace nibble::cpu {

// Immutable, thread-safe. About as large as the canonical planes.
class PanelWeight final : public PackedWeight {
 public:
  // Null when the layout cannot hold the weight (no integers; columns or groups that are no
  // multiple of kInt8Block).
  static std::shared_ptr<const PanelWeight> pack(const QuantTensor& weight, ThreadPool& pool);

  const PanelView& view() const { return view_; }

 private:
  PanelWeight() = default;
  void pack_panel(const QuantTensor& weight, std::int64_t panel);

  PanelView view_;
  Tensor codes_;   // [panels, panel_bytes]
  Tensor scales_;  // [panels, groups, kPanelRows]
  Tensor zeros_;   // likewise, of bytes; may be empty
};

}  // namespace nibble::cpu
