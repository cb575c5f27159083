#include <utf8proc.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "model/tokenizer/jinja/builtins.h"
#include "model/tokenizer/pattern.h"
#include "model/tokenizer/unicode.h"

namespace nibble::jinja {
namespace {

constexpr std::string_view kSpaces = " \t\n\r\f\v";

std::string text_argument(const Arguments& arguments, std::size_t position, const char* method) {
  const Value value = arguments.get(position, "");
  if (value.text() == nullptr) {
    fail(ErrorKind::kCorrupt, "chat template: {}() needs a text, not {}", method, type_name(value));
  }
  return *value.text();
}

std::string strip(std::string_view text, const Arguments& arguments, bool left, bool right) {
  const Value chars = arguments.get(0, "chars", nullptr);
  const std::string set = chars.text() != nullptr ? *chars.text() : std::string(kSpaces);
  const auto in_set = [&](std::string_view c) { return set.find(c) != std::string::npos; };
  while (left && !text.empty() && in_set(text.substr(0, utf8_length(text[0])))) {
    text.remove_prefix(utf8_length(text[0]));
  }
  while (right && !text.empty()) {
    std::size_t begin = text.size() - 1;
    while ((static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
    if (!in_set(text.substr(begin))) break;
    text = text.substr(0, begin);
  }
  return std::string(text);
}

// Without a separator: at runs of spaces, with no empty parts.
List split(std::string_view text, const Arguments& arguments) {
  const Value separator = arguments.get(0, "sep", nullptr);
  const Value limit = arguments.get(1, "maxsplit", std::int64_t{-1});
  std::int64_t left = limit.as<std::int64_t>() != nullptr ? *limit.as<std::int64_t>() : -1;
  List parts;
  if (separator.is_none()) {
    for (text = text.substr(std::min(text.find_first_not_of(kSpaces), text.size()));
         !text.empty();) {
      const std::size_t end =
          left-- == 0 ? text.size() : std::min(text.find_first_of(kSpaces), text.size());
      parts.emplace_back(std::string(text.substr(0, end)));
      text.remove_prefix(end);
      text = text.substr(std::min(text.find_first_not_of(kSpaces), text.size()));
    }
    return parts;
  }
  const std::string mark = text_argument(arguments, 0, "split");
  if (mark.empty()) fail(ErrorKind::kCorrupt, "chat template: split() at nothing");
  for (std::size_t at; left != 0 && (at = text.find(mark)) != std::string_view::npos; --left) {
    parts.emplace_back(std::string(text.substr(0, at)));
    text.remove_prefix(at + mark.size());
  }
  parts.emplace_back(std::string(text));
  return parts;
}

std::string upper(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const auto c = static_cast<utf8proc_int32_t>(next_code_point(text, i));
    if (c == 0xdf) {
      out += "SS";
    } else {
      append_utf8(out, static_cast<char32_t>(utf8proc_toupper(c)));
    }
  }
  return out;
}

// First letter of each word, or of the text only, in upper case, the rest in lower case.
std::string title(std::string_view text, bool every_word) {
  std::string out;
  bool start = true;
  for (std::size_t i = 0; i < text.size();) {
    const std::string_view c = text.substr(i, utf8_length(text[i]));
    std::size_t after = i;
    const auto k = utf8proc_category(static_cast<utf8proc_int32_t>(next_code_point(text, after)));
    const bool letter = k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
    out += start ? upper(c) : to_lower(c);
    start = every_word && !letter;
    i = after;
  }
  return out;
}

bool starts_or_ends(const std::string& text, const Arguments& arguments, bool start) {
  const Value wanted = arguments.get(0, "");
  const List options = wanted.list() != nullptr ? *wanted.list() : List{wanted};
  return std::any_of(options.begin(), options.end(), [&](const Value& option) {
    if (option.text() == nullptr) {
      fail(ErrorKind::kCorrupt, "chat template: a text expected, not {}", type_name(option));
    }
    return start ? text.starts_with(*option.text()) : text.ends_with(*option.text());
  });
}

std::string replace(const std::string& text, const Arguments& arguments) {
  const std::string from = text_argument(arguments, 0, "replace");
  if (from.empty()) fail(ErrorKind::kUnsupported, "chat template: replace() of nothing");
  return replace_all(text, from, text_argument(arguments, 1, "replace"));
}

std::int64_t find(const std::string& text, const Arguments& arguments) {
  const std::size_t at = text.find(text_argument(arguments, 0, "find"));
  if (at == std::string::npos) return -1;
  return static_cast<std::int64_t>(to_utf32(std::string_view(text).substr(0, at)).size());
}

std::string join(const std::string& separator, const Arguments& arguments) {
  std::string out;
  bool first = true;
  for (const Value& item : items_of(arguments.get(0, ""))) {
    if (!first) out += separator;
    first = false;
    out += to_text(item);
  }
  return out;
}

using TextMethod = Value (*)(const std::string&, const Arguments&);

const std::map<std::string, TextMethod>& text_methods() {
  using S = const std::string&;
  using A = const Arguments&;
  static const std::map<std::string, TextMethod> kMethods = {
      {"strip", [](S s, A a) -> Value { return strip(s, a, true, true); }},
      {"lstrip", [](S s, A a) -> Value { return strip(s, a, true, false); }},
      {"rstrip", [](S s, A a) -> Value { return strip(s, a, false, true); }},
      {"split", [](S s, A a) -> Value { return Value::list(split(s, a)); }},
      {"startswith", [](S s, A a) -> Value { return starts_or_ends(s, a, true); }},
      {"endswith", [](S s, A a) -> Value { return starts_or_ends(s, a, false); }},
      {"upper", [](S s, A) -> Value { return upper(s); }},
      {"lower", [](S s, A) -> Value { return to_lower(s); }},
      {"title", [](S s, A) -> Value { return title(s, true); }},
      {"capitalize", [](S s, A) -> Value { return title(s, false); }},
      {"replace", [](S s, A a) -> Value { return replace(s, a); }},
      {"find", [](S s, A a) -> Value { return find(s, a); }},
      {"join", [](S s, A a) -> Value { return join(s, a); }},
  };
  return kMethods;
}

Value call_dict_method(const Dict& dict, const std::string& name, const Arguments& arguments) {
  if (name == "get") {
    const Value key = arguments.get(0, "key");
    const Value* found = key.text() == nullptr ? nullptr : dict.find(*key.text());
    return found != nullptr ? *found : arguments.get(1, "default", nullptr);
  }
  List out;
  for (const auto& [key, value] : dict.entries) {
    if (name == "items") {
      out.push_back(Value::list({key, value}));
    } else if (name == "keys") {
      out.emplace_back(key);
    } else if (name == "values") {
      out.push_back(value);
    }
  }
  if (name == "items" || name == "keys" || name == "values") return Value::list(std::move(out));
  fail(ErrorKind::kUnsupported, "chat template: dictionaries have no method '{}'", name);
}

}  // namespace

Value Arguments::get(std::size_t position, std::string_view name, Value fallback) const {
  if (position < positional.size()) return positional[position];
  for (const auto& [key, value] : named) {
    if (key == name) return value;
  }
  return fallback;
}

Value call_method(const Value& object, const std::string& name, const Arguments& arguments) {
  if (const std::string* text = object.text()) {
    const auto it = text_methods().find(name);
    if (it != text_methods().end()) return it->second(*text, arguments);
  } else if (const Dict* dict = object.dict()) {
    return call_dict_method(*dict, name, arguments);
  } else if (const Undefined* undefined = object.as<Undefined>()) {
    fail(ErrorKind::kCorrupt, "chat template: '{}' is undefined", undefined->name);
  }
  fail(ErrorKind::kUnsupported, "chat template: {} has no method '{}'", type_name(object), name);
}

List items_of(const Value& value) {
  if (const List* list = value.list()) return *list;
  if (const std::string* text = value.text()) return characters(*text);
  if (value.is_undefined()) return {};
  if (const Dict* dict = value.dict()) {
    List keys;
    for (const auto& [key, entry] : dict->entries) keys.emplace_back(key);
    return keys;
  }
  fail(ErrorKind::kCorrupt, "chat template: {} is not iterable", type_name(value));
}

Value attribute(const Value& value, const std::string& name) {
  if (const Undefined* undefined = value.as<Undefined>()) {
    fail(ErrorKind::kCorrupt, "chat template: '{}' is undefined, so it has no '{}'",
         undefined->name, name);
  }
  if (const Dict* dict = value.dict()) {
    if (const Value* found = dict->find(name)) return *found;
  }
  return Value::undefined(name);
}

}  // namespace nibble::jinja
