// The vendor's matrix product (cuBLASLt), found at run time: the program starts, and runs its own
// kernels, on a machine without it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace nibble::cuda {

class Blas;

// Elements of x and w; sums and y are int32 for kInt8, else float32.
enum class BlasType : std::int32_t { kF16, kBf16, kInt8, kFp8 };

// y[m, rows] (+)= x[m, cols] * w[rows, cols]^T; x and w of one type and contiguous. Bytes are never
// accumulated, and want columns and rows that are multiples of 16.
struct BlasProduct {
  Blas* blas = nullptr;
  const void* w = nullptr;
  const void* x = nullptr;
  void* y = nullptr;
  std::int64_t m = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t y_stride = 0;
  // Of kFp8: y[m, r] = x_scales[m] * w_scales[r] * (x * w^T)[m, r], if Blas::scales() can; or null.
  const float* w_scales = nullptr;
  const float* x_scales = nullptr;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  BlasType type = BlasType::kBf16;
  std::int32_t accumulate = 0;
  std::int32_t half_results = 0;  // y is of 16 bits: as x, bf16 for kFp8; not for kInt8
  std::int32_t algorithm = 0;     // of those that the library proposes, below Blas::algorithms()
};

// Not thread-safe.
class Blas {
 public:
  // The library, opened at the first call; null when the machine has no libcublasLt.so.13.
  static Blas* get();
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  // Whether it takes the shape: columns and strides that are a multiple of 8.
  static bool takes(std::int64_t cols);
  // How many algorithms the library proposes for a product, the likely best first; at most 12.
  int algorithms(const BlasProduct& args);
  // Whether a product with scales can be run.
  bool scales(const BlasProduct& args);

 private:
  struct State;
  static std::unique_ptr<Blas> open();
  explicit Blas(std::unique_ptr<State> state);
  friend cudaError_t multiply(const BlasProduct& args, cudaStream_t stream);

  std::unique_ptr<State> state_;
};

cudaError_t multiply(const BlasProduct& args, cudaStream_t stream);

}  // namespace nibble::cuda
