#include "ops/op.h"

namespace nibble {

std::string_view to_string(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kGeneric:
      return "generic";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kNeon:
      return "neon";
  }
  return "unknown";
}

std::string_view to_string(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kInt8 ? "int8" : "float32";
}

}  // namespace nibble
