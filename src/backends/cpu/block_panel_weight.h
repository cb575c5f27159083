// Super-blocks of ggml repacked for byte products; see block_panel_kernels.h for the layout.
#pragma once

#include <memory>

#include "backends/cpu/block_panel_kernels.h"
#include "backends/packed_store.h"
#include "base/thread_pool.h"
#include "formats/format.h"
#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cpu {

// Immutable, thread-safe. 0 to 3 % larger than the blocks.
class BlockPanelWeight final : public PackedWeight {
 public:
  // Null for what is in no blocks of kBlockPanelTypes, or in such as the machine's kernels do not
  // take. Taken from the slot's store when it is there, and put there otherwise.
  static std::shared_ptr<const BlockPanelWeight> pack(const QuantTensor& weight,
                                                      const DeviceCaps& caps, ThreadPool& pool,
                                                      const PackedSlot& slot = {});

  const BlockPanelView& view() const { return view_; }

 private:
  BlockPanelWeight() = default;

  BlockPanelView view_;
  Tensor bytes_;  // [panels, panel_bytes]
};

// Null when the weight of the call is in no such panels.
const BlockPanelWeight* block_panels_of(const LinearArgs& args);

}  // namespace nibble::cpu
