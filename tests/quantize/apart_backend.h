// The CPU's backend behind memory that the host cannot touch: what a device is to those who drive
// it. An access of the host to what is the device's ends the test.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace nibble::test {

// Copies to the host that were started and not waited for: now, and at most so far. One of those to
// come can fail with kDevice, when it starts or is waited for.
struct Reads {
  int under_way = 0;
  int most = 0;
  int starts_until_failure = 0;  // 1: the next one; 0: none fails
  int waits_until_failure = 0;
};

// `reads`: counts and says what fails; must outlive the backend; may be null.
std::unique_ptr<Backend> apart_backend(std::unique_ptr<Backend> cpu, Reads* reads = nullptr);

}  // namespace nibble::test
