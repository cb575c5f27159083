// Kernel launches with the attribute of a dependent launch.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "backends/cuda/device/dependent_launch.cuh"

namespace nibble::cuda {

// A launch may take 48 KiB unasked, of which what the kernel declares itself is a part: this leaves
// it a KiB.
inline constexpr std::size_t kFreeSharedBytes = 47 * 1024;

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;  // above kFreeSharedBytes: the kernel is told so at each launch
  bool dependent = false;
};

template <class... Parameters, class... Args>
cudaError_t launch(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                   const Args&... args) {
  if (shape.shared_bytes > kFreeSharedBytes) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attribute = dependent_launch_attribute(shape.dependent);
  config.attrs = &attribute;
  config.numAttrs = shape.dependent ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

}  // namespace nibble::cuda
