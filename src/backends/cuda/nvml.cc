#include "backends/cuda/nvml.h"

#include "backends/cuda/library.h"

namespace nibble::cuda {

// Of NVML's interface, whose header is not part of every toolkit: functions give 0 for success.
struct Nvml::State {
  using Device = void*;
  enum Clock : unsigned { kSm = 1, kMemory = 2 };

  Library library{"libnvidia-ml.so.1"};
  bool started = false;
  Device device = nullptr;
  int (*start)() = nullptr;
  int (*shut_down)() = nullptr;
  int (*find)(const char* pci_address, Device* device) = nullptr;
  int (*clock)(Device device, unsigned which, unsigned* mhz) = nullptr;
  int (*power)(Device device, unsigned* milliwatts) = nullptr;

  ~State() {
    if (started) shut_down();
  }

  bool load() {
    return library.find("nvmlInit_v2", start) && library.find("nvmlShutdown", shut_down) &&
           library.find("nvmlDeviceGetHandleByPciBusId_v2", find) &&
           library.find("nvmlDeviceGetClockInfo", clock) &&
           library.find("nvmlDeviceGetPowerUsage", power);
  }

  double mhz(unsigned which) const {
    unsigned value = 0;
    return clock(device, which, &value) == 0 ? value : 0;
  }
};

Nvml::Nvml(std::unique_ptr<State> state) : state_(std::move(state)) {}
Nvml::~Nvml() = default;

std::unique_ptr<Nvml> Nvml::open(const std::string& pci_address) {
  auto state = std::make_unique<State>();
  if (!state->load() || state->start() != 0) return nullptr;
  state->started = true;
  if (state->find(pci_address.c_str(), &state->device) != 0) return nullptr;
  return std::unique_ptr<Nvml>(new Nvml(std::move(state)));
}

CardState Nvml::state() const {
  CardState state;
  state.sm_mhz = state_->mhz(State::kSm);
  state.memory_mhz = state_->mhz(State::kMemory);
  unsigned milliwatts = 0;
  if (state_->power(state_->device, &milliwatts) == 0) state.watts = 1e-3 * milliwatts;
  return state;
}

}  // namespace nibble::cuda
