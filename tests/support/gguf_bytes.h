// GGUF files put together byte by byte, sound ones and damaged ones, in either byte order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace nibble::test {

inline std::span<const std::byte> span_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

class GgufBytes {
 public:
  struct Llama {
    std::uint32_t layers, hidden, heads, kv_heads, ffn;
  };

  explicit GgufBytes(bool big_endian = false, std::uint32_t version = 3)
      : big_endian_(big_endian), version_(version) {}

  // What stands in the header instead of the true numbers.
  std::uint64_t more_keys = 0, more_tensors = 0;
  std::uint64_t alignment = 32;

  GgufBytes& key(const std::string& name, std::uint32_t type) {
    ++keys_;
    text(head_, name);
    number(head_, type);
    return *this;
  }
  void u32(const std::string& name, std::uint32_t value) {
    key(name, 4);
    number(head_, value);
  }
  void f32(const std::string& name, float value) {
    key(name, 6);
    number(head_, value);
  }
  void string(const std::string& name, const std::string& value) {
    key(name, 8);
    text(head_, value);
  }
  // Numbers behind a key() whose value they are.
  template <class T>
  void raw(T value) {
    number(head_, value);
  }

  void llama_keys(const Llama& sizes) {
    string("general.architecture", "llama");
    u32("llama.block_count", sizes.layers);
    u32("llama.context_length", 64);
    u32("llama.embedding_length", sizes.hidden);
    u32("llama.feed_forward_length", sizes.ffn);
    u32("llama.attention.head_count", sizes.heads);
    u32("llama.attention.head_count_kv", sizes.kv_heads);
    f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  }

  // `type` is ggml's id. The data stand as given, aligned.
  void tensor(const std::string& name, std::uint32_t type, const Shape& shape,
              std::span<const std::byte> data) {
    describe(name, type, std::vector<std::uint64_t>(shape.rbegin(), shape.rend()), data_.size());
    data_.append(reinterpret_cast<const char*>(data.data()), data.size());
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
  }
  // A description alone.
  void describe(const std::string& name, std::uint32_t type, const std::vector<std::uint64_t>& dims,
                std::uint64_t offset) {
    ++tensors_;
    text(infos_, name);
    number(infos_, static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t dim : dims) number(infos_, dim);
    number(infos_, type);
    number(infos_, offset);
  }

  std::string bytes() const {
    std::string all = "GGUF";
    number(all, version_);
    number(all, tensors_ + more_tensors);
    number(all, keys_ + more_keys);
    all += head_ + infos_;
    all.resize((all.size() + alignment - 1) / alignment * alignment);
    return all + data_;
  }
  void write(const std::filesystem::path& path) const {
    const std::string all = bytes();
    std::ofstream(path, std::ios::binary)
        .write(all.data(), static_cast<std::streamsize>(all.size()));
  }

 private:
  template <class T>
  void number(std::string& to, T value) const {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    if (big_endian_) std::reverse(bytes, bytes + sizeof value);
    to.append(bytes, sizeof value);
  }
  void text(std::string& to, const std::string& value) const {
    number(to, static_cast<std::uint64_t>(value.size()));
    to += value;
  }

  bool big_endian_;
  std::uint32_t version_;
  std::uint64_t keys_ = 0, tensors_ = 0;
  std::string head_, infos_, data_;
};

}  // namespace nibble::test
