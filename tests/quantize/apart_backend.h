// The CPU's backend behind memory that the host cannot touch: what a device is to those who drive
// it. An access of the host to what is the device's ends the test.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace nibble::test {

// Copies to the host that were started and not waited for: now, and at most so far.
struct Reads {
  int under_way = 0;
  int most = 0;
};

// `reads`: counts, and must outlive the backend; may be null.
std::unique_ptr<Backend> apart_backend(std::unique_ptr<Backend> cpu, Reads* reads = nullptr);

}  // namespace nibble::test
