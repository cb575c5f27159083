// The CPU's backend behind memory that the host cannot touch: what a device is to those who drive
// it. An access of the host to what is the device's ends the test.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace nibble::test {

std::unique_ptr<Backend> apart_backend(std::unique_ptr<Backend> cpu);

}  // namespace nibble::test
