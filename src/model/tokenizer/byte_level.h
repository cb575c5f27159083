// How vocabularies spell bytes. GPT-2's spelling is of printable characters: printable Latin-1
// stands for itself, the other 68 bytes are U+0100 and up, so that a vocabulary of any bytes is
// valid text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace nibble {

std::string bytes_to_characters(std::string_view bytes);

// Appends the bytes that `text` spells; when some character spells none, appends `text` itself.
void append_spelled_bytes(std::string_view text, std::string& out);

// The byte that a piece like <0x0A> stands for, SentencePiece's spelling.
std::optional<char> byte_of(std::string_view piece);

// GPT-2's pre-tokenizer, part of every "ByteLevel" that does not switch it off.
constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace nibble
