#include "model/tokenizer/pattern.h"

#include "base/error.h"
#include "model/tokenizer/json_fields.h"

namespace nibble {

Pattern::Pattern(const Json& json, std::string_view what) {
  const Json& pattern = field(json, "pattern", what);
  if (pattern.is_object() && pattern.contains("Regex")) {
    regex_.emplace(string_field(pattern, "Regex", what), what);
  } else {
    literal_ = string_field(pattern, "String", what);
  }
}

void Pattern::each_match(
    std::string_view text,
    const std::function<void(std::size_t begin, std::size_t end)>& found) const {
  if (regex_) {
    regex_->each_match(text, found);
    return;
  }
  if (literal_.empty()) return;
  for (std::size_t at = text.find(literal_); at != std::string_view::npos;
       at = text.find(literal_, at + literal_.size())) {
    found(at, at + literal_.size());
  }
}

std::string Pattern::replace(std::string_view text, std::string_view content) const {
  std::string out;
  std::size_t done = 0;
  each_match(text, [&](std::size_t begin, std::size_t end) {
    out += text.substr(done, begin - done);
    out += content;
    done = end;
  });
  out += text.substr(done);
  return out;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  std::size_t done = 0;
  for (std::size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, done)) {
    out += text.substr(done, at - done);
    out += to;
    done = at + from.size();
  }
  out += text.substr(done);
  return out;
}

}  // namespace nibble
