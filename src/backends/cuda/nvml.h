// Clocks and power as the driver's management library (NVML) tells them; found at run time.
#pragma once

#include <memory>
#include <string>

#include "backends/card_timer.h"

namespace nibble::cuda {

class Nvml {
 public:
  // For the card with this PCI address ("0000:5E:00.0"); null when the machine has no
  // libnvidia-ml.so.1, or it does not know the card.
  static std::unique_ptr<Nvml> open(const std::string& pci_address);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // Power is the mean of the last second.
  CardState state() const;

 private:
  struct State;
  explicit Nvml(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace nibble::cuda
