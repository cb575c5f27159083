#include "server/tool_calls.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/json.h"

namespace nibble::server {
namespace {

constexpr std::string_view kOpen = "<tool_call>";
constexpr std::string_view kClose = "</tool_call>";
constexpr std::string_view kPythonTag = "<|python_tag|>";
constexpr std::string_view kSpace = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::optional<ToolCall> call_of(std::string_view text) {
  using Ordered = nlohmann::ordered_json;
  try {
    parse_json(text, "tool call");  // its bounds; the other keeps the order of the arguments
    const Ordered json = Ordered::parse(text.begin(), text.end());
    if (!json.is_object() || !json.contains("name") || !json["name"].is_string()) return {};
    for (const char* key : {"arguments", "parameters"}) {
      const auto at = json.find(key);
      if (at == json.end()) continue;
      if (at->is_object()) return ToolCall{json["name"], at->dump()};
      if (at->is_string()) return ToolCall{json["name"], at->get<std::string>()};
      return {};
    }
    return {};
  } catch (const Error&) {
    return {};
  }
}

// Where an object that starts at 0 ends: one past its last brace. npos when it does not.
std::size_t object_end(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{') {
      ++depth;
    } else if (c == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

// The calls of an answer that is nothing else; none when any part of it is something else.
std::vector<ToolCall> whole_answer_calls(std::string_view text) {
  std::vector<ToolCall> calls;
  text = trimmed(text);
  if (text.starts_with(kPythonTag)) text = trimmed(text.substr(kPythonTag.size()));
  while (!text.empty()) {
    const std::size_t end = text.front() == '{' ? object_end(text) : std::string_view::npos;
    if (end == std::string_view::npos) return {};
    const auto call = call_of(text.substr(0, end));
    if (!call) return {};
    calls.push_back(*call);
    text = trimmed(text.substr(end));
    if (text.starts_with(';')) text = trimmed(text.substr(1));
  }
  return calls;
}

// Bytes at the end of `text` that may be the beginning of `tag`.
std::size_t begun(std::string_view text, std::string_view tag) {
  for (std::size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n) {
    if (text.ends_with(tag.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace

void ToolCallParser::take_tagged(Found& found) {
  while (true) {
    const std::size_t open = pending_.find(kOpen);
    if (open == std::string::npos) {
      const std::size_t certain = pending_.size() - begun(pending_, kOpen);
      found.text += pending_.substr(0, certain);
      pending_.erase(0, certain);
      return;
    }
    const std::size_t close = pending_.find(kClose, open);
    if (close == std::string::npos) {
      found.text += pending_.substr(0, open);
      pending_.erase(0, open);
      return;
    }
    const std::size_t inside = open + kOpen.size();
    const auto call = call_of(trimmed(std::string_view(pending_).substr(inside, close - inside)));
    const std::size_t end = close + kClose.size();
    found.text += pending_.substr(0, call ? open : end);
    if (call) found.calls.push_back(*call);
    pending_.erase(0, end);
  }
}

ToolCallParser::Found ToolCallParser::push(std::string_view piece) {
  pending_ += piece;
  Found found;
  if (form_ == Form::kUndecided) {
    const std::string_view text = trimmed(pending_);
    if (text.empty() || (text.size() < kPythonTag.size() && kPythonTag.starts_with(text))) {
      return found;
    }
    const bool whole = text.front() == '{' || text.starts_with(kPythonTag);
    form_ = whole ? Form::kWholeAnswer : Form::kTagged;
  }
  if (form_ == Form::kTagged) take_tagged(found);
  return found;
}

ToolCallParser::Found ToolCallParser::finish() {
  Found found;
  if (form_ == Form::kWholeAnswer) found.calls = whole_answer_calls(pending_);
  if (found.calls.empty()) found.text = std::move(pending_);
  pending_.clear();
  return found;
}

}  // namespace nibble::server
