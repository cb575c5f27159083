// From status codes of CUDA to errors.
#pragma once

#include <cuda_runtime_api.h>

#include "base/error.h"

namespace nibble::cuda {

// kDevice, with what CUDA calls the failure, unless it is success. `what` says what was being done.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  // Or what was only refused would be taken for the failure of the next launch.
  (void)cudaGetLastError();
  if (status == cudaErrorMemoryAllocation) {
    fail(ErrorKind::kDevice, "{}: out of device memory; use a smaller model, context or batch",
         what);
  }
  fail(ErrorKind::kDevice, "{}: {} ({})", what, cudaGetErrorString(status),
       cudaGetErrorName(status));
}

}  // namespace nibble::cuda
