#include "model/tokenizer/normalizer.h"

#include <map>
#include <memory>

#include "base/base64.h"
#include "base/error.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/pattern.h"
#include "model/tokenizer/precompiled.h"
#include "model/tokenizer/unicode.h"

namespace nibble {
namespace {

constexpr const char* kWhat = "tokenizer: normalizer";

using CharacterTest = bool (*)(char32_t);

void remove_if(std::string& text, CharacterTest unwanted) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t begin = i;
    if (!unwanted(next_code_point(text, i))) out.append(text, begin, i - begin);
  }
  text = std::move(out);
}

template <NormalForm form>
Normalizer make_form(const Json&) {
  return [](std::string& text) { text = normalize_unicode(text, form); };
}

Normalizer make_lowercase(const Json&) {
  return [](std::string& text) { text = to_lower(text); };
}

Normalizer make_strip_accents(const Json&) {
  return [](std::string& text) { remove_if(text, is_mark); };
}

Normalizer make_byte_level(const Json&) {
  return [](std::string& text) { text = bytes_to_characters(text); };
}

void strip(std::string& text, bool left, bool right) {
  std::size_t first = text.size();  // begin of the first character that is no space
  std::size_t last = 0;             // end of the last one
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t begin = i;
    if (is_whitespace(next_code_point(text, i))) continue;
    first = std::min(first, begin);
    last = i;
  }
  if (first == text.size()) {
    if (left || right) text.clear();
    return;
  }
  if (right) text.resize(last);
  if (left) text.erase(0, first);
}

Normalizer make_strip(const Json& json) {
  const bool left = bool_field_or(json, "strip_left", true, kWhat);
  const bool right = bool_field_or(json, "strip_right", true, kWhat);
  return [=](std::string& text) { strip(text, left, right); };
}

Normalizer make_replace(const Json& json) {
  return [pattern = Pattern(json, kWhat), content = string_field(json, "content", kWhat)](
             std::string& text) { text = pattern.replace(text, content); };
}

Normalizer make_prepend(const Json& json) {
  return [added = string_field(json, "prepend", kWhat)](std::string& text) {
    if (!text.empty()) text.insert(0, added);
  };
}

Normalizer make_append(const Json& json) {
  return [added = string_field(json, "append", kWhat)](std::string& text) {
    if (!text.empty()) text += added;
  };
}

Normalizer make_precompiled(const Json& json) {
  const std::string encoded = string_field(json, "precompiled_charsmap", kWhat);
  const auto map = std::make_shared<PrecompiledMap>(decode_base64(encoded, kWhat), kWhat);
  return [map](std::string& text) { text = map->normalize(text); };
}

// Cleaning for machine translation, as SentencePiece's "nmt" rules: control characters vanish,
// every kind of space and byte-order mark becomes a space.
void clean_nmt(std::string& text) {
  const auto vanishes = [](char32_t c) {
    return (c >= 0x1 && c <= 0x8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f ||
           c == 0x8f || c == 0x9f;
  };
  const auto is_space = [](char32_t c) {
    return c == 0x9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 ||
           (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xfeff || c == 0xfffd;
  };
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const char32_t c = next_code_point(text, i);
    if (!vanishes(c)) append_utf8(out, is_space(c) ? U' ' : c);
  }
  text = std::move(out);
}

Normalizer make_nmt(const Json&) { return clean_nmt; }

// Control characters vanish and all spaces become U+0020.
void clean_bert(std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const char32_t c = next_code_point(text, i);
    if (c == '\t' || c == '\n' || c == '\r' || (is_whitespace(c) && !is_other(c))) {
      out += ' ';
    } else if (c != 0 && c != 0xfffd && !is_other(c)) {
      append_utf8(out, c);
    }
  }
  text = std::move(out);
}

void separate_chinese(std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const char32_t c = next_code_point(text, i);
    const bool chinese = is_chinese_character(c);
    if (chinese) out += ' ';
    append_utf8(out, c);
    if (chinese) out += ' ';
  }
  text = std::move(out);
}

Normalizer make_bert(const Json& json) {
  const bool clean = bool_field_or(json, "clean_text", true, kWhat);
  const bool chinese = bool_field_or(json, "handle_chinese_chars", true, kWhat);
  const bool lower = bool_field_or(json, "lowercase", true, kWhat);
  const bool accents = bool_field_or(json, "strip_accents", lower, kWhat);
  return [=](std::string& text) {
    if (clean) clean_bert(text);
    if (chinese) separate_chinese(text);
    if (accents) {
      text = normalize_unicode(text, NormalForm::kNfd);
      remove_if(text, is_nonspacing_mark);
    }
    if (lower) text = to_lower(text);
  };
}

Normalizer make_sequence(const Json& json) {
  return [parts = make_all(json, "normalizers", kWhat, make_normalizer)](std::string& text) {
    for (const Normalizer& part : parts) part(text);
  };
}

}  // namespace

Normalizer make_normalizer(const Json& json) {
  using Factory = Normalizer (*)(const Json&);
  static const std::map<std::string, Factory> kFactories = {
      {"NFC", make_form<NormalForm::kNfc>},
      {"NFD", make_form<NormalForm::kNfd>},
      {"NFKC", make_form<NormalForm::kNfkc>},
      {"NFKD", make_form<NormalForm::kNfkd>},
      {"Lowercase", make_lowercase},
      {"Strip", make_strip},
      {"StripAccents", make_strip_accents},
      {"Replace", make_replace},
      {"Prepend", make_prepend},
      {"Append", make_append},
      {"Precompiled", make_precompiled},
      {"Nmt", make_nmt},
      {"BertNormalizer", make_bert},
      {"ByteLevel", make_byte_level},
      {"Sequence", make_sequence},
  };
  if (json.is_null()) return [](std::string&) {};
  const std::string type = string_field(json, "type", kWhat);
  const auto it = kFactories.find(type);
  if (it == kFactories.end()) fail(ErrorKind::kUnsupported, "{}: type '{}'", kWhat, type);
  return it->second(json);
}

}  // namespace nibble
