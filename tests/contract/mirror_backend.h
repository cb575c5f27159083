// A device's backend for tests that hold their data in host memory: what an op reads and writes is
// copied to the device, the op runs, and everything is copied back, guards and all.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace nibble::test {

std::unique_ptr<Backend> mirror_backend(std::unique_ptr<Backend> device);

}  // namespace nibble::test
