// The vendor's matrix product, found at run time: benchmarks compare with it, nothing depends on
// it.
#pragma once

#include <cstdint>
#include <memory>

namespace nibble {

class VendorBlas {
 public:
  // Null when the machine has no OpenBLAS.
  static std::unique_ptr<VendorBlas> open(int threads);
  ~VendorBlas();
  VendorBlas(const VendorBlas&) = delete;
  VendorBlas& operator=(const VendorBlas&) = delete;

  // y[m, rows] = x[m, cols] * w[rows, cols]^T
  void linear(const float* x, const float* w, std::int64_t m, std::int64_t rows, std::int64_t cols,
              float* y) const;

 private:
  using Sgemm = void (*)(int order, int transpose_a, int transpose_b, int m, int n, int k,
                         float alpha, const float* a, int lda, const float* b, int ldb, float beta,
                         float* c, int ldc);
  VendorBlas(void* library, Sgemm sgemm) : library_(library), sgemm_(sgemm) {}

  void* library_;
  Sgemm sgemm_;
};

}  // namespace nibble
