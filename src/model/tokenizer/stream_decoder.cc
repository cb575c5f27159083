#include <string_view>

#include "model/tokenizer/tokenizer.h"

// Decoding depends on what came before (a leading space goes only at the start) and on what
// comes after (a character may lack its last bytes), but only on a few ids. So a window of recent
// ids is decoded at every step and the text beyond what was given out already is new.

namespace nibble {
namespace {

constexpr std::string_view kReplacement = "\ufffd";
constexpr std::size_t kLongestCharacter = 4;   // bytes, hence ids, that one character can need
constexpr std::size_t kContext = 8;            // ids kept when the window moves on
constexpr std::size_t kWindow = 3 * kContext;  // its greatest length, as a rule

// An end that cannot be told from a character that lacks bytes: each byte of it is at most one
// replacement character.
std::size_t uncertain_bytes(std::string_view text) {
  std::size_t count = 0;
  while (count < kLongestCharacter - 1 && text.ends_with(kReplacement)) {
    text.remove_suffix(kReplacement.size());
    ++count;
  }
  return count * kReplacement.size();
}

}  // namespace

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(tokenizer), skip_special_(skip_special) {}

std::string StreamDecoder::push(std::int32_t id) {
  ids_.push_back(id);
  const std::string text = tokenizer_.decode(ids_, skip_special_);
  const std::size_t certain = text.size() - uncertain_bytes(text);
  std::string fresh;
  if (certain > emitted_.size() && text.starts_with(emitted_)) {
    fresh = text.substr(emitted_.size(), certain - emitted_.size());
    emitted_ += fresh;
  }
  move_window(text);
  return fresh;
}

void StreamDecoder::move_window(const std::string& text) {
  if (ids_.size() < next_move_) return;
  next_move_ = ids_.size() * 2;
  std::vector<std::int32_t> recent(ids_.end() - static_cast<std::ptrdiff_t>(kContext), ids_.end());
  const std::string recent_text = tokenizer_.decode(recent, skip_special_);
  // The part that is not given out yet must look the same from the shorter window.
  if (!text.starts_with(emitted_)) return;
  const std::string_view pending = std::string_view(text).substr(emitted_.size());
  if (recent_text.size() <= pending.size() || !recent_text.ends_with(pending)) return;
  emitted_ = recent_text.substr(0, recent_text.size() - pending.size());
  ids_ = std::move(recent);
  next_move_ = kWindow;
}

std::string StreamDecoder::flush() {
  const std::string text = tokenizer_.decode(ids_, skip_special_);
  std::string rest = text.starts_with(emitted_) ? text.substr(emitted_.size()) : std::string();
  ids_.clear();
  emitted_.clear();
  next_move_ = kWindow;
  return rest;
}

}  // namespace nibble
