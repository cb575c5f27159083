// The CUDA backend as the rest of the program sees it; a build without CUDA links no_cuda.cc.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace nibble {

// True when this build has the CUDA backend and the machine a device for it.
bool cuda_available();

// kUnsupported in a build without CUDA.
std::unique_ptr<Backend> make_cuda_backend(int device, const BackendOptions& options);

}  // namespace nibble
