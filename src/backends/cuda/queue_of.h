// The queue of a backend that was made by make_cuda_backend().
#pragma once

#include "backends/backend.h"
#include "backends/cuda/queue.h"

namespace nibble::cuda {

// Null for a backend of another kind. Lives as long as the backend.
DeviceQueue* queue_of(Backend& backend);

}  // namespace nibble::cuda
