// What an answer is asked to look like: OpenAI's response_format and tool_choice, vLLM's guided_*
// and structured_outputs, llama.cpp's json_schema and grammar.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/grammar/spec.h"
#include "server/fields.h"

namespace nibble::server {

// Of the members of `fields`, which were read from `body` (where the order of properties is still
// to be seen). None when they ask for nothing. ApiError 400, naming the member, for what cannot be
// meant and for two at once.
std::optional<grammar::Spec> read_structure(Fields& fields, std::string_view body);

// A call of one of the tools (OpenAI's form, checked before): of `name`, or any if it is empty; of
// several, one after the other, if they may be `parallel` and are `tagged`.
grammar::Spec tool_call_structure(const nlohmann::ordered_json& tools, const std::string& name,
                                  bool tagged, bool parallel);

}  // namespace nibble::server
