#include "backends/card_timer.h"
#include "backends/cuda.h"

namespace nibble {

bool cuda_available() { return false; }

std::unique_ptr<CardTimer> open_card_timer(Backend&) { return nullptr; }

std::unique_ptr<Backend> make_cuda_backend(int device, const BackendOptions&) {
  fail(ErrorKind::kUnsupported, "device cuda:{}: this build has no CUDA; use --device cpu", device);
}

}  // namespace nibble
