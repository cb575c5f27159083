// Programmatic dependent launch: a kernel may start while the one ahead of it in the stream is
// still running, if it says where it first needs that kernel's results (CUDA C++ Programming Guide,
// "Programmatic Dependent Launch and Synchronization").
#pragma once

#include <cuda_runtime.h>

namespace nibble::cuda {

// Returns once every kernel ahead has ended and its writes are visible. At once without the launch
// attribute.
__device__ __forceinline__ void wait_for_kernel_ahead() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// From here on the next kernel of the stream may start.
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// The launch attribute to go with them.
inline cudaLaunchAttribute dependent_launch_attribute(bool on) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = on ? 1 : 0;
  return attribute;
}

}  // namespace nibble::cuda
