// Code points of valid UTF-8 text and the character classes that tokenizers ask about.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nibble {

// The code point that starts at text[i]; i moves past it. `text` must be valid UTF-8.
char32_t next_code_point(std::string_view text, std::size_t& i);

// Length in bytes of the character whose first byte this is.
std::size_t utf8_length(char first_byte);

void append_utf8(std::string& out, char32_t c);
std::u32string to_utf32(std::string_view text);

bool is_whitespace(char32_t c);         // White_Space, as Rust's char::is_whitespace
bool is_numeric(char32_t c);            // N*, as Rust's char::is_numeric
bool is_punctuation(char32_t c);        // P*, and ASCII symbols
bool is_other(char32_t c);              // C*: control, format, surrogate, private, unassigned
bool is_mark(char32_t c);               // M*
bool is_nonspacing_mark(char32_t c);    // Mn
bool is_word_character(char32_t c);     // \w of Unicode regexes (UTS 18, annex C)
bool is_chinese_character(char32_t c);  // CJK ideographs, the blocks that BERT separates

std::string to_lower(std::string_view text);

// Bytes that are no part of a valid character become U+FFFD, one for each maximal part of a
// character (Unicode 15, section 3.9, "substitution of maximal subparts").
std::string replace_invalid_utf8(std::string_view bytes);
// The same with one U+FFFD a byte.
std::string replace_each_invalid_byte(std::string_view bytes);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// Unicode normalization (UAX 15). Linear but for sorting runs of combining marks.
std::string normalize_unicode(std::string_view text, NormalForm form);

}  // namespace nibble
