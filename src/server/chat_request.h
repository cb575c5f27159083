// The body of POST /v1/chat/completions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/generation_request.h"

namespace nibble::server {

struct ChatRequest {
  GenerationRequest common;
  // What the chat template sees: "messages" with their content as one text, "tools" when the
  // request has usable ones, "add_generation_prompt", and the members of chat_template_kwargs.
  nlohmann::ordered_json conversation;
  bool tools = false;  // the answer may call some
  bool parallel_tool_calls = true;
  bool logprobs = false;
  std::int64_t top_logprobs = 0;
};

struct ParsedChat {
  ChatRequest request;
  std::vector<std::string> ignored;
};

// ApiError 400 (and kCorrupt for what is no JSON) on anything that cannot be meant.
ParsedChat parse_chat(std::string_view body, const RequestDefaults& defaults);

// The conversation alone, of a request that generates nothing (/tokenize).
nlohmann::ordered_json read_conversation(const nlohmann::ordered_json& body);

}  // namespace nibble::server
