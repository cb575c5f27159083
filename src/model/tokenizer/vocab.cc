#include "model/tokenizer/vocab.h"

#include "base/error.h"

namespace nibble {

void Vocab::reserve_id(std::string_view piece, std::int64_t id) {
  if (id < 0 || id >= limit_) {
    fail(ErrorKind::kCorrupt, "{}: token '{}' has the id {}, out of range", what_, piece, id);
  }
  const auto i = static_cast<std::size_t>(id);
  if (i >= pieces_.size()) {
    pieces_.resize(i + 1);
    known_.resize(i + 1);
  }
}

void Vocab::add(std::string_view piece, std::int64_t id) {
  reserve_id(piece, id);
  const auto i = static_cast<std::size_t>(id);
  if (known_[i]) {
    fail(ErrorKind::kCorrupt, "{}: tokens '{}' and '{}' share the id {}", what_, pieces_[i], piece,
         id);
  }
  if (!ids_.emplace(piece, static_cast<std::int32_t>(id)).second) {
    fail(ErrorKind::kCorrupt, "{}: token '{}' is there twice", what_, piece);
  }
  pieces_[i] = piece;
  known_[i] = true;
}

void Vocab::set(std::string_view piece, std::int64_t id) {
  reserve_id(piece, id);
  const auto i = static_cast<std::size_t>(id);
  ids_.insert_or_assign(std::string(piece), static_cast<std::int32_t>(id));
  pieces_[i] = piece;
  known_[i] = true;
}

std::optional<std::int32_t> Vocab::find(std::string_view piece) const {
  const auto it = ids_.find(piece);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

bool Vocab::has(std::int32_t id) const {
  return id >= 0 && id < size() && known_[static_cast<std::size_t>(id)];
}

}  // namespace nibble
