#include "model/tokenizer/decoder.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "base/error.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/pattern.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/unicode.h"

namespace nibble {
namespace {

constexpr const char* kWhat = "tokenizer: decoder";

std::string joined(const std::vector<std::string>& pieces) {
  std::string out;
  for (const std::string& piece : pieces) out += piece;
  return out;
}

Decoder make_fuse(const Json&) {
  return [](std::vector<std::string>& pieces) { pieces = {joined(pieces)}; };
}

Decoder make_byte_level(const Json&) {
  return [](std::vector<std::string>& pieces) {
    std::string bytes;
    for (const std::string& piece : pieces) append_spelled_bytes(piece, bytes);
    pieces = {replace_invalid_utf8(bytes)};
  };
}

// Runs of byte pieces become characters; a byte that is part of none becomes U+FFFD. (The
// `tokenizers` library gives up a whole run when part of it is invalid; then no character of the
// run would be certain before its end.)
Decoder make_byte_fallback(const Json&) {
  return [](std::vector<std::string>& pieces) {
    std::vector<std::string> out;
    std::string bytes;
    const auto flush = [&] {
      if (!bytes.empty()) out.push_back(replace_each_invalid_byte(bytes));
      bytes.clear();
    };
    for (std::string& piece : pieces) {
      if (const auto byte = byte_of(piece)) {
        bytes += *byte;
      } else {
        flush();
        out.push_back(std::move(piece));
      }
    }
    flush();
    pieces = std::move(out);
  };
}

Decoder make_metaspace(const Json& json) {
  const std::string mark = string_field(json, "replacement", kWhat);
  if (mark.empty()) fail(ErrorKind::kCorrupt, "{}: empty replacement", kWhat);
  const bool prepended = metaspace_scheme(json, kWhat) != "never";
  return [=](std::vector<std::string>& pieces) {
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      pieces[i] = replace_all(pieces[i], mark, i == 0 && prepended ? "" : " ");
    }
  };
}

Decoder make_strip(const Json& json) {
  const std::string content = string_field(json, "content", kWhat);
  if (content.empty()) fail(ErrorKind::kCorrupt, "{}: empty content", kWhat);
  const std::int64_t start = int_field_or(json, "start", 0, kWhat);
  const std::int64_t stop = int_field_or(json, "stop", 0, kWhat);
  return [=](std::vector<std::string>& pieces) {
    for (std::string& piece : pieces) {
      std::string_view rest = piece;
      for (std::int64_t i = 0; i < start && rest.starts_with(content); ++i) {
        rest.remove_prefix(content.size());
      }
      for (std::int64_t i = 0; i < stop && rest.ends_with(content); ++i) {
        rest.remove_suffix(content.size());
      }
      piece = std::string(rest);
    }
  };
}

Decoder make_replace(const Json& json) {
  return [pattern = Pattern(json, kWhat),
          content = string_field(json, "content", kWhat)](std::vector<std::string>& pieces) {
    for (std::string& piece : pieces) piece = pattern.replace(piece, content);
  };
}

// Spaces before punctuation and inside English contractions go.
std::string clean_up(std::string text) {
  constexpr std::array<std::pair<const char*, const char*>, 11> kRules = {{
      {" .", "."},
      {" ?", "?"},
      {" !", "!"},
      {" ,", ","},
      {" ' ", "'"},
      {" n't", "n't"},
      {" 'm", "'m"},
      {" do not", " don't"},
      {" 's", "'s"},
      {" 've", "'ve"},
      {" 're", "'re"},
  }};
  for (const auto& [from, to] : kRules) text = replace_all(text, from, to);
  return text;
}

Decoder make_wordpiece(const Json& json) {
  const std::string prefix = string_field_or(json, "prefix", "##", kWhat);
  const bool cleanup = bool_field_or(json, "cleanup", true, kWhat);
  return [=](std::vector<std::string>& pieces) {
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (i > 0) {
        if (pieces[i].starts_with(prefix)) {
          pieces[i].erase(0, prefix.size());
        } else {
          pieces[i].insert(0, " ");
        }
      }
      if (cleanup) pieces[i] = clean_up(std::move(pieces[i]));
    }
  };
}

Decoder make_bpe(const Json& json) {
  const std::string suffix = string_field_or(json, "suffix", "</w>", kWhat);
  if (suffix.empty()) fail(ErrorKind::kCorrupt, "{}: empty suffix", kWhat);
  return [=](std::vector<std::string>& pieces) {
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      pieces[i] = replace_all(pieces[i], suffix, i + 1 == pieces.size() ? "" : " ");
    }
  };
}

Decoder make_sequence(const Json& json) {
  return
      [parts = make_all(json, "decoders", kWhat, make_decoder)](std::vector<std::string>& pieces) {
        for (const Decoder& part : parts) part(pieces);
      };
}

void set_spaces_between(std::vector<std::string>& pieces) {
  for (std::size_t i = 1; i < pieces.size(); ++i) pieces[i].insert(0, " ");
}

}  // namespace

Decoder make_decoder(const Json& json) {
  using Factory = Decoder (*)(const Json&);
  static const std::map<std::string, Factory> kFactories = {
      {"ByteLevel", make_byte_level},
      {"Metaspace", make_metaspace},
      {"ByteFallback", make_byte_fallback},
      {"Fuse", make_fuse},
      {"Strip", make_strip},
      {"Replace", make_replace},
      {"WordPiece", make_wordpiece},
      {"BPEDecoder", make_bpe},
      {"Sequence", make_sequence},
  };
  if (json.is_null()) return set_spaces_between;
  const std::string type = string_field(json, "type", kWhat);
  const auto it = kFactories.find(type);
  if (it == kFactories.end()) fail(ErrorKind::kUnsupported, "{}: type '{}'", kWhat, type);
  return it->second(json);
}

}  // namespace nibble
