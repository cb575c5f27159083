// Arrays in device memory for tests.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <vector>

namespace nibble::test {

// Skips the rest of the test aloud where there is no device.
#define NIBBLE_NEEDS_CUDA()                                                          \
  do {                                                                               \
    int nibble_devices = 0;                                                          \
    if (cudaGetDeviceCount(&nibble_devices) != cudaSuccess || nibble_devices == 0) { \
      GTEST_SKIP() << "no CUDA device";                                              \
    }                                                                                \
  } while (false)

// Owns `size()` elements of device memory; copies are synchronous.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t size) : size_(size) {
    if (cudaMalloc(&data_, size * sizeof(T) + 1) != cudaSuccess) {
      ADD_FAILURE() << "cudaMalloc of " << size * sizeof(T) << " bytes";
    }
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaSuccess,
              cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* data() { return static_cast<T*>(data_); }
  std::size_t size() const { return size_; }

  // Sets every byte.
  void fill(int byte) { EXPECT_EQ(cudaSuccess, cudaMemset(data_, byte, size_ * sizeof(T))); }

  // Waits for the device; a failure of what ran there shows here.
  std::vector<T> host() const {
    std::vector<T> values(size_);
    EXPECT_EQ(cudaSuccess, cudaDeviceSynchronize());
    EXPECT_EQ(cudaSuccess,
              cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  void* data_ = nullptr;
  std::size_t size_;
};

}  // namespace nibble::test
