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
    case CpuIsa::kAmx:
      return "amx";
    case CpuIsa::kNeon:
      return "neon";
  }
  return "unknown";
}

std::string_view to_string(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::kFloat32:
      return "float32";
    case Arithmetic::kBf16:
    case Arithmetic::kBf16Exact:
    case Arithmetic::kBf16Scaled:
      return "bf16";
    case Arithmetic::kF16:
      return "f16";
    case Arithmetic::kFp8:
      return "fp8";
    case Arithmetic::kInt8:
    case Arithmetic::kSignedInt8:
      return "int8";
  }
  return "unknown";
}

}  // namespace nibble
