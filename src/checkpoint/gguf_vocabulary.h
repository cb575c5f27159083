// The tokenizer of a Hugging Face directory as the keys of a GGUF file: the way back of
// tokenizer_from_gguf(). Source: llama.cpp, src/llama-vocab.cpp and gguf-py/gguf/vocab.py.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "checkpoint/checkpoint.h"
#include "checkpoint/container/gguf_writer.h"

namespace nibble {

// tokenizer.json and what refines it, by name, from the documents and the companion files of a
// checkpoint; chat_template.jinja is a text. kCorrupt when one is damaged.
std::map<std::string, Json> tokenizer_documents(const Checkpoint& source);

// Adds tokenizer.ggml.* and the chat template for `size` tokens (rows of the embedding; ids without
// a token become unused ones); "none" when there is no tokenizer.json. kUnsupported, with the
// reason, for tokenizers that llama.cpp has no kind or no `pre` type for; kCorrupt for damaged
// ones.
void add_vocabulary(const std::map<std::string, Json>& documents, const Json& config,
                    std::int64_t size, GgufMetadata& metadata);

}  // namespace nibble
