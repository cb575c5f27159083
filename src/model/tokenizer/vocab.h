// Pieces and their ids.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nibble {

struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};
template <class T>
using StringMap = std::unordered_map<std::string, T, StringHash, std::equal_to<>>;

// A two-way table; ids may have holes, whose piece is empty. Filled once, then immutable.
class Vocab {
 public:
  // An id may be at most kMaxHoles above the number of pieces there will be, so that a hostile id
  // cannot ask for memory. kCorrupt for ids out of that range, an id given twice or a piece given
  // twice.
  static constexpr std::int64_t kMaxHoles = 1 << 18;
  Vocab(std::int64_t pieces, std::string_view what) : limit_(pieces + kMaxHoles), what_(what) {}

  void add(std::string_view piece, std::int64_t id);
  // Gives the piece this id whatever either was before: how added tokens rename pieces.
  void set(std::string_view piece, std::int64_t id);

  std::optional<std::int32_t> find(std::string_view piece) const;
  bool has(std::int32_t id) const;
  const std::string& piece(std::int32_t id) const {
    return pieces_.at(static_cast<std::size_t>(id));
  }

  // One more than the largest id.
  std::int64_t size() const { return static_cast<std::int64_t>(pieces_.size()); }

 private:
  void reserve_id(std::string_view piece, std::int64_t id);

  std::int64_t limit_;
  std::string what_;
  StringMap<std::int32_t> ids_;
  std::vector<std::string> pieces_;
  std::vector<bool> known_;
};

}  // namespace nibble
