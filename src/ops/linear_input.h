// What implementations of linear that multiply x as it is say of calls that ask for more.
#pragma once

#include "ops/args.h"
#include "ops/op.h"

namespace nibble {

inline Support takes_input(const LinearArgs& args) {
  if (args.activations != nullptr) return Support::no("x is to be rounded first");
  return Support::yes();
}

}  // namespace nibble
