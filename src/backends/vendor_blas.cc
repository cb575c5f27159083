#include "backends/vendor_blas.h"

#include <dlfcn.h>

namespace nibble {

std::unique_ptr<VendorBlas> VendorBlas::open(int threads) {
  void* library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return nullptr;
  const auto sgemm = reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm"));
  const auto set_threads =
      reinterpret_cast<void (*)(int)>(dlsym(library, "openblas_set_num_threads"));
  if (sgemm == nullptr || set_threads == nullptr) {
    dlclose(library);
    return nullptr;
  }
  set_threads(threads);
  return std::unique_ptr<VendorBlas>(new VendorBlas(library, sgemm));
}

VendorBlas::~VendorBlas() { dlclose(library_); }

void VendorBlas::linear(const float* x, const float* w, std::int64_t m, std::int64_t rows,
                        std::int64_t cols, float* y) const {
  constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112;  // of the CBLAS interface
  const int k = static_cast<int>(cols);
  const int n = static_cast<int>(rows);
  sgemm_(kRowMajor, kPlain, kTransposed, static_cast<int>(m), n, k, 1, x, k, w, k, 0, y, n);
}

}  // namespace nibble
