// Implementations of linear that can be given x in a form, or take two calls and the activation of
// their results at once.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "backends/cuda/fragment_linear.h"
#include "backends/cuda/kernels/product_rows.h"
#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cuda {

struct FormedLinear {
  std::string_view name;
  RowForm form;  // of x; kFloat32: none of its own
  // Calls of at least one row with the same x, which is given in the form; null for kFloat32.
  void (*run)(std::span<const LinearArgs> calls, const ProductRows& x, ExecContext& context);
  SiluPair pair;           // or null
  std::int64_t pair_rows;  // at most
};

// Null for implementations that do neither.
const FormedLinear* formed_linear_of(std::string_view impl);

}  // namespace nibble::cuda
