#include "model/tokenizer/pre_tokenizer.h"

#include <map>

#include "base/error.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/pattern.h"
#include "model/tokenizer/split.h"
#include "model/tokenizer/unicode.h"

namespace nibble {
namespace {

constexpr const char* kWhat = "tokenizer: pre_tokenizer";

using CharacterTest = bool (*)(char32_t);

// Every character that passes the test is a delimiter.
DelimiterFinder characters(CharacterTest test) {
  return [test](std::string_view text, std::vector<Span>& delimiters) {
    for (std::size_t i = 0; i < text.size();) {
      const std::size_t begin = i;
      if (test(next_code_point(text, i))) delimiters.push_back({begin, i, true});
    }
  };
}

template <class Searcher>
DelimiterFinder matches_of(Searcher searcher) {
  return [searcher = std::move(searcher)](std::string_view text, std::vector<Span>& delimiters) {
    searcher.each_match(text, [&](std::size_t begin, std::size_t end) {
      delimiters.push_back({begin, end, true});
    });
  };
}

SplitBehavior behavior_field(const Json& json, std::string_view fallback) {
  return split_behavior(string_field_or(json, "behavior", fallback, kWhat), kWhat);
}

PreTokenizer make_byte_level(const Json& json) {
  const bool add_prefix_space = bool_field_or(json, "add_prefix_space", true, kWhat);
  const bool use_regex = bool_field_or(json, "use_regex", true, kWhat);
  return [=, find = matches_of(Regex(kGpt2Regex, kWhat))](std::vector<Word>& words) {
    if (add_prefix_space) {
      for (Word& word : words) {
        if (word.text.front() != ' ') word.text.insert(0, " ");
      }
    }
    if (use_regex) split(words, find, SplitBehavior::kIsolated);
    for (Word& word : words) word.text = bytes_to_characters(word.text);
  };
}

PreTokenizer make_split(const Json& json) {
  const SplitBehavior behavior = behavior_field(json, "");
  const bool invert = bool_field_or(json, "invert", false, kWhat);
  return [=, find = matches_of(Pattern(json, kWhat))](std::vector<Word>& words) {
    split(words, find, behavior, invert);
  };
}

// Runs of word characters and runs of other characters, without spaces between.
void find_gaps_between_runs(std::string_view text, std::vector<Span>& delimiters) {
  enum class Class { kNone, kSpace, kWord, kOther };
  Class previous = Class::kNone;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t begin = i;
    const char32_t c = next_code_point(text, i);
    const Class now = is_whitespace(c)       ? Class::kSpace
                      : is_word_character(c) ? Class::kWord
                                             : Class::kOther;
    if (now == Class::kSpace) {
      delimiters.push_back({begin, i, true});
    } else if (now != previous && previous != Class::kNone) {
      delimiters.push_back({begin, begin, true});
    }
    previous = now;
  }
}

PreTokenizer make_whitespace(const Json&) {
  return [](std::vector<Word>& words) {
    split(words, find_gaps_between_runs, SplitBehavior::kRemoved);
  };
}

PreTokenizer make_whitespace_split(const Json&) {
  return [](std::vector<Word>& words) {
    split(words, characters(is_whitespace), SplitBehavior::kRemoved);
  };
}

PreTokenizer make_bert(const Json&) {
  return [](std::vector<Word>& words) {
    split(words, characters(is_whitespace), SplitBehavior::kRemoved);
    split(words, characters(is_punctuation), SplitBehavior::kIsolated);
  };
}

PreTokenizer make_punctuation(const Json& json) {
  return [behavior = behavior_field(json, "Isolated")](std::vector<Word>& words) {
    split(words, characters(is_punctuation), behavior);
  };
}

PreTokenizer make_digits(const Json& json) {
  const bool individual = bool_field_or(json, "individual_digits", false, kWhat);
  return [=](std::vector<Word>& words) {
    split(words, characters(is_numeric),
          individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
  };
}

// A one-character field as text.
std::string character_field(const Json& json, const char* key) {
  const std::string text = string_field(json, key, kWhat);
  if (text.empty() || utf8_length(text[0]) != text.size()) {
    fail(ErrorKind::kCorrupt, "{}: '{}' is not one character", kWhat, key);
  }
  return text;
}

DelimiterFinder occurrences(std::string literal) {
  return [literal = std::move(literal)](std::string_view text, std::vector<Span>& delimiters) {
    for (std::size_t at = text.find(literal); at != std::string_view::npos;
         at = text.find(literal, at + literal.size())) {
      delimiters.push_back({at, at + literal.size(), true});
    }
  };
}

PreTokenizer make_char_delimiter_split(const Json& json) {
  return [find = occurrences(character_field(json, "delimiter"))](std::vector<Word>& words) {
    split(words, find, SplitBehavior::kRemoved);
  };
}

PreTokenizer make_metaspace(const Json& json) {
  const std::string mark = character_field(json, "replacement");
  const std::string scheme = metaspace_scheme(json, kWhat);
  const bool cut = bool_field_or(json, "split", true, kWhat);
  return [=, find = occurrences(mark)](std::vector<Word>& words) {
    for (Word& word : words) {
      word.text = replace_all(word.text, " ", mark);
      const bool wanted = scheme == "always" || (scheme == "first" && word.first);
      if (wanted && !word.text.starts_with(mark)) word.text.insert(0, mark);
    }
    if (cut) split(words, find, SplitBehavior::kMergedWithNext);
  };
}

PreTokenizer make_sequence(const Json& json) {
  return [parts = make_all(json, "pretokenizers", kWhat, make_pre_tokenizer)](
             std::vector<Word>& words) {
    for (const PreTokenizer& part : parts) part(words);
  };
}

}  // namespace

std::string metaspace_scheme(const Json& json, std::string_view what) {
  const std::string scheme = string_field_or(json, "prepend_scheme", "", what);
  if (scheme.empty()) {
    return bool_field_or(json, "add_prefix_space", true, what) ? "always" : "never";
  }
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    fail(ErrorKind::kCorrupt, "{}: no prepend_scheme '{}'", what, scheme);
  }
  return scheme;
}

PreTokenizer make_pre_tokenizer(const Json& json) {
  using Factory = PreTokenizer (*)(const Json&);
  static const std::map<std::string, Factory> kFactories = {
      {"ByteLevel", make_byte_level},
      {"Split", make_split},
      {"Whitespace", make_whitespace},
      {"WhitespaceSplit", make_whitespace_split},
      {"BertPreTokenizer", make_bert},
      {"Metaspace", make_metaspace},
      {"Digits", make_digits},
      {"Punctuation", make_punctuation},
      {"CharDelimiterSplit", make_char_delimiter_split},
      {"Sequence", make_sequence},
  };
  if (json.is_null()) return [](std::vector<Word>&) {};
  const std::string type = string_field(json, "type", kWhat);
  const auto it = kFactories.find(type);
  if (it == kFactories.end()) fail(ErrorKind::kUnsupported, "{}: type '{}'", kWhat, type);
  return it->second(json);
}

}  // namespace nibble
