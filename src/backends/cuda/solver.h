// The vendor's factorizations (cuSOLVER), found at run time, as blas.h says of its products.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace nibble::cuda {

// Not thread-safe.
class Solver {
 public:
  // The library, opened at the first call; null when the machine has no libcusolver.so.12.
  static Solver* get();
  ~Solver();
  Solver(const Solver&) = delete;
  Solver& operator=(const Solver&) = delete;

  // The lower triangle of a [n, n], row-major on the device, is replaced by L^-1 for a = L L^T;
  // what lies above the diagonal is not read. False, with it in no particular state, when a is not
  // positive definite. Waits for the stream. `workspace` gives memory of the device. kDevice when
  // the library fails.
  bool inverse_of_root(double* a, std::int64_t n,
                       const std::function<void*(std::size_t bytes)>& workspace,
                       cudaStream_t stream);

 private:
  struct State;
  static std::unique_ptr<Solver> open();
  explicit Solver(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace nibble::cuda
