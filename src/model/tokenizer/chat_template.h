// Chat templates: the Jinja programs by which checkpoints say how a conversation becomes a prompt.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace nibble {

// Renders a template as Hugging Face transformers does (trim_blocks, lstrip_blocks, loop controls).
// `context` is an object, usually {"messages": [{"role": ..., "content": ...}],
// "add_generation_prompt": true, "bos_token": ..., "eos_token": ...}. Objects are printed in their
// order: Json sorts them, so pass an ordered_json where the template prints objects (tools).
// kCorrupt, with the line, for templates that are damaged or run away (nesting, steps and output
// are bounded); kUnsupported for parts of Jinja that are not known; kUsage when the template itself
// raises an exception, which is how it refuses a conversation. Thread-safe.
std::string apply_chat_template(std::string_view template_text, const Json& context);
std::string apply_chat_template(std::string_view template_text,
                                const nlohmann::ordered_json& context);

// The template of a checkpoint directory: chat_template.jinja, chat_template.json or
// tokenizer_config.json ("chat_template": a text, or a list of named ones of which "default"
// counts). None when there is none; kCorrupt when it is damaged.
std::optional<std::string> load_chat_template(const std::filesystem::path& checkpoint_dir);
// That of a tokenizer_config.json alone.
std::optional<std::string> chat_template_of(const Json& tokenizer_config);

// For models without a template: bos_token, each message as "role: content" and a blank line,
// then "assistant:" when add_generation_prompt is set.
std::string_view fallback_chat_template();

}  // namespace nibble
