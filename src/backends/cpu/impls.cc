#include "backends/cpu/impls.h"

#include "ops/reference/reference.h"

namespace nibble::cpu {
namespace {

template <class Args>
Support always(const Args&, const DeviceCaps&) {
  return Support::yes();
}

}  // namespace

#define NIBBLE_OP(name, Args)                         \
  ImplList<Args> name##_impls() {                     \
    static constexpr Impl<Args> kImpls[] = {          \
        {"reference", always<Args>, reference::name}, \
    };                                                \
    return kImpls;                                    \
  }
#include "ops/ops.def"
#undef NIBBLE_OP

CpuIsa level_of(std::string_view impl_name) {
  if (impl_name.starts_with("avx512")) return CpuIsa::kAvx512;
  if (impl_name.starts_with("avx2")) return CpuIsa::kAvx2;
  return CpuIsa::kGeneric;
}

}  // namespace nibble::cpu
