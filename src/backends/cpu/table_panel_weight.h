// Weights of tables repacked for the kernels of table_panel_kernels.h.
#pragma once

#include <memory>
#include <vector>

#include "backends/cpu/table_panel_kernels.h"
#include "backends/packed_store.h"
#include "base/thread_pool.h"
#include "formats/format.h"
#include "ops/args.h"

namespace nibble::cpu {

// Immutable, thread-safe. As large as the codes and, where those are floats, F8_E8M0 or F8_E4M3,
// the scales; doubly quantized scales, and those of blocks of rows, become F32.
class TablePanelWeight final : public PackedWeight {
 public:
  // most_bits: of the codes that the machine's kernels take, 4 or 8. Null for others; for what is
  // no table of 4 bits, nor a float of 8 bits that is a half with fewer or has at most 4 bits of
  // exponent, no code of the weight being NaN or infinite; for groups that are no multiple of 8 or
  // do not divide the columns; and for scales in a byte that are negative or NaN. Taken from the
  // slot's store when it is there, and put there otherwise.
  static std::shared_ptr<const TablePanelWeight> pack(const QuantTensor& weight, int most_bits,
                                                      ThreadPool& pool,
                                                      const PackedSlot& slot = {});

  const TablePanelView& view() const { return view_; }

 private:
  TablePanelWeight() = default;

  TablePanelView view_;
  std::vector<float> values_, steps_;
  Tensor codes_;   // [panels, panel_bytes]
  Tensor scales_;  // [panels, groups, kPanelRows]
};

// Null when the weight of the call is in no such panels.
const TablePanelWeight* table_panels_of(const LinearArgs& args);

}  // namespace nibble::cpu
