#include "backends/cuda/nvml.h"

#include <dlfcn.h>

namespace nibble::cuda {

// Of NVML's interface, whose header is not part of every toolkit: functions give 0 for success.
struct Nvml::Library {
  using Device = void*;
  enum Clock : unsigned { kSm = 1, kMemory = 2 };

  void* handle = nullptr;
  bool started = false;
  Device device = nullptr;
  int (*start)() = nullptr;
  int (*shut_down)() = nullptr;
  int (*find)(const char* pci_address, Device* device) = nullptr;
  int (*clock)(Device device, unsigned which, unsigned* mhz) = nullptr;
  int (*power)(Device device, unsigned* milliwatts) = nullptr;

  ~Library() {
    if (started) shut_down();
    if (handle != nullptr) ::dlclose(handle);
  }

  template <class Function>
  bool load(Function& function, const char* name) {
    function = reinterpret_cast<Function>(::dlsym(handle, name));
    return function != nullptr;
  }

  bool load_all() {
    handle = ::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    return handle != nullptr && load(start, "nvmlInit_v2") && load(shut_down, "nvmlShutdown") &&
           load(find, "nvmlDeviceGetHandleByPciBusId_v2") &&
           load(clock, "nvmlDeviceGetClockInfo") && load(power, "nvmlDeviceGetPowerUsage");
  }

  double mhz(unsigned which) const {
    unsigned value = 0;
    return clock(device, which, &value) == 0 ? value : 0;
  }
};

Nvml::Nvml(std::unique_ptr<Library> library) : library_(std::move(library)) {}
Nvml::~Nvml() = default;

std::unique_ptr<Nvml> Nvml::open(const std::string& pci_address) {
  auto library = std::make_unique<Library>();
  if (!library->load_all() || library->start() != 0) return nullptr;
  library->started = true;
  if (library->find(pci_address.c_str(), &library->device) != 0) return nullptr;
  return std::unique_ptr<Nvml>(new Nvml(std::move(library)));
}

CardState Nvml::state() const {
  CardState state;
  state.sm_mhz = library_->mhz(Library::kSm);
  state.memory_mhz = library_->mhz(Library::kMemory);
  unsigned milliwatts = 0;
  if (library_->power(library_->device, &milliwatts) == 0) state.watts = 1e-3 * milliwatts;
  return state;
}

}  // namespace nibble::cuda
