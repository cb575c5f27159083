#include "model/tokenizer/jinja/value.h"

#include <cmath>

#include "base/error.h"
#include "model/tokenizer/unicode.h"

namespace nibble::jinja {
namespace {

constexpr int kMaxDepth = 100;

template <class AnyJson>
Value convert(const AnyJson& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return json.template get<bool>();
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return json.template get<std::int64_t>();
    case Json::value_t::number_float:
      return json.template get<double>();
    case Json::value_t::string:
      return json.template get<std::string>();
    case Json::value_t::array: {
      List items;
      for (const auto& item : json) items.push_back(convert(item));
      return Value::list(std::move(items));
    }
    case Json::value_t::object: {
      auto dict = std::make_shared<Dict>();
      for (const auto& [key, value] : json.items()) {
        dict->entries.emplace_back(key, convert(value));
      }
      return dict;
    }
    default:
      return nullptr;
  }
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

// Python prefers single quotes and uses double ones around texts that hold only single ones.
std::string py_quoted(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    if (c == quote || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + quote;
}

std::string json_quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const std::size_t k = std::string_view("\"\\\n\r\t\b\f").find(c);
    if (k != std::string_view::npos && c != '\0') {
      out += '\\';
      out += "\"\\nrtbf"[k];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

// Writes nested values; the two notations differ in their words, quotes and line breaks.
class Writer {
 public:
  Writer(bool json, int indent) : json_(json), indent_(indent) {}

  void write(const Value& value, int depth) {
    if (depth > kMaxDepth) fail(ErrorKind::kCorrupt, "chat template: value nested too deeply");
    if (const List* list = value.list()) {
      write_all('[', ']', list->size(), depth,
                [&](std::size_t i) { write((*list)[i], depth + 1); });
    } else if (const Dict* dict = value.dict()) {
      write_all('{', '}', dict->entries.size(), depth, [&](std::size_t i) {
        const auto& [key, entry] = dict->entries[i];
        out_ += json_ ? json_quoted(key) : py_quoted(key);
        out_ += ": ";
        write(entry, depth + 1);
      });
    } else if (const std::string* text = value.text()) {
      out_ += json_ ? json_quoted(*text) : py_quoted(*text);
    } else {
      out_ += scalar(value);
    }
    if (out_.size() > kMaxBytes) fail(ErrorKind::kCorrupt, "chat template: value is too large");
  }

  std::string take() { return std::move(out_); }

 private:
  static constexpr std::size_t kMaxBytes = std::size_t{64} << 20;

  template <class WriteItem>
  void write_all(char open, char close, std::size_t count, int depth, const WriteItem& item) {
    out_ += open;
    for (std::size_t i = 0; i < count; ++i) {
      if (i > 0) out_ += indent_ < 0 ? ", " : ",";
      new_line(depth + 1);
      item(i);
    }
    if (count > 0) new_line(depth);
    out_ += close;
  }

  void new_line(int depth) {
    if (indent_ < 0) return;
    out_ += '\n';
    out_.append(static_cast<std::size_t>(indent_) * static_cast<std::size_t>(depth), ' ');
  }

  std::string scalar(const Value& value) const {
    if (const bool* b = value.as<bool>()) {
      return json_ ? (*b ? "true" : "false") : (*b ? "True" : "False");
    }
    if (value.is_none()) return json_ ? "null" : "None";
    if (const auto* i = value.as<std::int64_t>()) return std::to_string(*i);
    if (const auto* d = value.as<double>()) return float_text(*d);
    if (value.is_undefined() && !json_) return "Undefined";
    fail(ErrorKind::kCorrupt, "chat template: {} cannot be written", type_name(value));
  }

  bool json_;
  int indent_;
  std::string out_;
};

}  // namespace

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Dict::set(std::string_view key, Value value) {
  for (auto& [name, old] : entries) {
    if (name != key) continue;
    old = std::move(value);
    return;
  }
  entries.emplace_back(key, std::move(value));
}

double Value::number() const {
  if (const auto* i = as<std::int64_t>()) return static_cast<double>(*i);
  if (const bool* b = as<bool>()) return *b ? 1 : 0;
  return std::get<double>(data);
}

Value from_json(const Json& json) { return convert(json); }
Value from_json(const nlohmann::ordered_json& json) { return convert(json); }

bool truthy(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_number() || value.as<bool>() != nullptr) return value.number() != 0;
  if (const std::string* text = value.text()) return !text->empty();
  if (const List* list = value.list()) return !list->empty();
  if (const Dict* dict = value.dict()) return dict->is_namespace || !dict->entries.empty();
  return true;
}

bool equal(const Value& a, const Value& b) {
  const auto numeric = [](const Value& v) { return v.is_number() || v.as<bool>() != nullptr; };
  if (numeric(a) && numeric(b)) return a.number() == b.number();
  if (a.data.index() != b.data.index()) return false;
  if (const std::string* text = a.text()) return *text == *b.text();
  if (const List* list = a.list()) {
    const List& other = *b.list();
    return std::equal(list->begin(), list->end(), other.begin(), other.end(), equal);
  }
  if (const Dict* dict = a.dict()) {
    if (dict == b.dict()) return true;
    if (dict->is_namespace || dict->entries.size() != b.dict()->entries.size()) return false;
    for (const auto& [key, value] : dict->entries) {
      const Value* other = b.dict()->find(key);
      if (other == nullptr || !equal(value, *other)) return false;
    }
    return true;
  }
  return a.is_none() || a.is_undefined();
}

const char* type_name(const Value& value) {
  static constexpr const char* kNames[] = {"undefined", "None", "bool", "int",     "float",
                                           "str",       "list", "dict", "function"};
  return kNames[value.data.index()];
}

std::string to_text(const Value& value) {
  if (const std::string* text = value.text()) return *text;
  if (value.is_undefined()) return "";
  Writer writer(false, -1);
  writer.write(value, 0);
  return writer.take();
}

std::string to_json(const Value& value, int indent) {
  Writer writer(true, indent);
  writer.write(value, 0);
  return writer.take();
}

List characters(std::string_view text) {
  List out;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text[i]);
    out.emplace_back(std::string(text.substr(i, length)));
    i += length;
  }
  return out;
}

}  // namespace nibble::jinja
