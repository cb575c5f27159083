// A prefix tree over bytes.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nibble {

class Trie {
 public:
  static constexpr std::int32_t kNoValue = -1;
  static constexpr std::uint32_t kRoot = 0;

  // Longer keys are kUnsupported: matching costs the length of the longest key a position.
  static constexpr std::size_t kMaxKeyBytes = 1024;

  // value >= 0. An equal key keeps the later value.
  void insert(std::string_view key, std::int32_t value);

  // Moves from `node` along one byte; false when no key goes on like that.
  bool step(std::uint32_t& node, char byte) const {
    const auto it = edges_.find(std::uint64_t{node} << 8 | static_cast<unsigned char>(byte));
    if (it == edges_.end()) return false;
    node = it->second;
    return true;
  }
  std::int32_t value(std::uint32_t node) const { return values_[node]; }

  struct Match {
    std::size_t length = 0;  // 0: none
    std::int32_t value = kNoValue;
  };
  // The longest key that `text` starts with, the walk beginning at `node`.
  Match longest(std::string_view text, std::uint32_t node = kRoot) const;

 private:
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;
  std::vector<std::int32_t> values_ = {kNoValue};
};

}  // namespace nibble
