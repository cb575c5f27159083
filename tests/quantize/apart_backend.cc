#include "quantize/apart_backend.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <span>
#include <utility>

#include "base/error.h"
#include "support/wrapped_backend.h"

namespace nibble::test {
namespace {

// Blocks of whole pages that can be locked.
class Pages {
 public:
  void* allocate(std::size_t bytes) {
    void* const data =
        mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) fail(ErrorKind::kMemory, "{} bytes of test memory", bytes);
    blocks_.insert({data, bytes});
    return data;
  }
  void free(void* data, std::size_t bytes) {
    blocks_.erase({data, bytes});
    munmap(data, bytes);
  }
  void protect(int protection) {
    for (const auto& [data, bytes] : blocks_) mprotect(data, bytes, protection);
  }

 private:
  std::set<std::pair<void*, std::size_t>> blocks_;
};

class Unlocked {
 public:
  explicit Unlocked(Pages& pages) : pages_(pages) { pages_.protect(PROT_READ | PROT_WRITE); }
  ~Unlocked() { pages_.protect(PROT_NONE); }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  Pages& pages_;
};

// Of what is there when the copy starts.
class CountedRead final : public ReadBack {
 public:
  CountedRead(std::unique_ptr<ReadBack> read, Reads* reads)
      : read_(std::move(read)), reads_(reads) {}
  ~CountedRead() override { count(false); }
  void start(const void* device, std::size_t bytes) override {
    if (reads_ != nullptr) fail_in(reads_->starts_until_failure);
    read_->start(device, bytes);
    count(true);
  }
  const void* wait() override {
    count(false);
    if (reads_ != nullptr) fail_in(reads_->waits_until_failure);
    return read_->wait();
  }

 private:
  static void fail_in(int& turns) {
    if (turns > 0 && --turns == 0) fail(ErrorKind::kDevice, "a copy that was to fail");
  }
  void count(bool under_way) {
    if (reads_ == nullptr || std::exchange(under_way_, under_way) == under_way) return;
    reads_->under_way += under_way ? 1 : -1;
    reads_->most = std::max(reads_->most, reads_->under_way);
  }

  std::unique_ptr<ReadBack> read_;
  Reads* reads_;
  bool under_way_ = false;
};

class ApartMemory final : public DeviceMemory {
 public:
  explicit ApartMemory(Reads* reads) : reads_(reads) {}
  bool is_host() const override { return false; }
  std::size_t available() const override { return host_memory().available(); }
  Tensor allocate(DType dtype, Shape shape) override {
    const auto elements = static_cast<std::size_t>(element_count(shape));
    const std::size_t bytes = elements * dtype_size(dtype) + 1;
    void* const data = pages_->allocate(bytes);
    std::shared_ptr<const void> owner(
        data, [pages = pages_, bytes](void* block) { pages->free(block, bytes); });
    return Tensor::on_device(dtype, std::move(shape), data, std::move(owner));
  }
  void copy_in(const void* host, std::size_t bytes, void* device) override {
    copy(host, bytes, device);
  }
  void copy_out(const void* device, std::size_t bytes, void* host) override {
    copy(device, bytes, host);
  }
  void copy(const void* from, std::size_t bytes, void* to) override {
    const Unlocked unlocked(*pages_);
    std::memcpy(to, from, bytes);
  }
  void copy_rows(const void* from, std::size_t from_stride, std::size_t row_bytes, std::size_t rows,
                 void* to, std::size_t to_stride) override {
    const Unlocked unlocked(*pages_);
    host_memory().copy_rows(from, from_stride, row_bytes, rows, to, to_stride);
  }
  void zero(void* device, std::size_t bytes) override {
    const Unlocked unlocked(*pages_);
    std::memset(device, 0, bytes);
  }
  std::unique_ptr<ReadBack> make_read_back(std::size_t bytes) override {
    return std::make_unique<CountedRead>(DeviceMemory::make_read_back(bytes), reads_);
  }
  Pages& pages() { return *pages_; }

 private:
  Reads* reads_;
  std::shared_ptr<Pages> pages_ = std::make_shared<Pages>();
};

// Ops of the CPU read weights in the host's memory, so prepare() keeps them there.
class ApartBackend final : public WrappedBackend {
 public:
  ApartBackend(std::unique_ptr<Backend> cpu, Reads* reads)
      : WrappedBackend(std::move(cpu)), memory_(reads) {}

  DeviceMemory& memory() override { return memory_; }

#define NIBBLE_OP(name, Args)                 \
  void run(const Args& args) override {       \
    const Unlocked unlocked(memory_.pages()); \
    inner().run(args);                        \
  }
#include "ops/ops.def"
#undef NIBBLE_OP

  void run_together(std::span<const LinearArgs> calls) override {
    const Unlocked unlocked(memory_.pages());
    inner().run_together(calls);
  }

  using Backend::prepare;
  LinearWeight prepare(QuantTensor weight, const std::string& name,
                       const ActivationFormat* activations) override {
    for (Tensor& plane : weight.planes) plane = memory_.download(plane);
    return inner().prepare(std::move(weight), name, activations);
  }
  bool encodes(const Format& format, std::int64_t, std::int64_t) const override {
    return format.is_affine();
  }
  void use_packed_store(std::shared_ptr<PackedStore>) override {}

 private:
  ApartMemory memory_;
};

}  // namespace

std::unique_ptr<Backend> apart_backend(std::unique_ptr<Backend> cpu, Reads* reads) {
  return std::make_unique<ApartBackend>(std::move(cpu), reads);
}

}  // namespace nibble::test
