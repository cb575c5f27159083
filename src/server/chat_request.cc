#include "server/chat_request.h"

#include <utility>

#include "server/api_error.h"
#include "server/structured_output.h"

namespace nibble::server {
namespace {

using Ordered = nlohmann::ordered_json;
constexpr std::size_t kMostMessages = 16384;
constexpr std::size_t kMostTools = 1024;

[[noreturn]] void refuse_message(std::size_t index, const std::string& why) {
  refuse_member(fmt::format("messages[{}]", index), why);
}

// A content of parts is joined to one text: templates of text models know no other.
std::string text_of_parts(const Ordered& parts, std::size_t index) {
  std::string text;
  for (const Ordered& part : parts) {
    const std::string type = part.is_object() ? part.value("type", Ordered()).dump() : "";
    if (type != "\"text\"") {
      refuse_message(index, "has a part of type " + (type.empty() ? "none" : type) +
                                "; this model takes parts of type \"text\" alone");
    }
    const auto at = part.find("text");
    if (at == part.end() || !at->is_string()) refuse_message(index, "has a part without text");
    text += at->get<std::string>();
  }
  return text;
}

// OpenAI sends the arguments of a call as text, templates want them as an object.
void open_arguments(Ordered& message, std::size_t index) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || calls->is_null()) return;
  if (!calls->is_array()) refuse_message(index, "tool_calls must be a list");
  for (Ordered& call : *calls) {
    const auto function = call.is_object() ? call.find("function") : call.end();
    if (!call.is_object() || function == call.end() || !function->is_object()) {
      refuse_message(index, "has a tool call without a function");
    }
    const auto arguments = function->find("arguments");
    if (arguments == function->end() || !arguments->is_string()) continue;
    const auto text = arguments->get<std::string>();
    // The bounds of parse_json(), which refuses what is no JSON; the order comes from the other.
    parse_json(text, "the arguments of a tool call");
    *arguments = Ordered::parse(text);
  }
}

Ordered read_message(const Ordered& sent, std::size_t index) {
  if (!sent.is_object()) refuse_message(index, "must be an object");
  const auto role = sent.find("role");
  if (role == sent.end() || !role->is_string()) refuse_message(index, "has no role");
  Ordered message = sent;
  const auto content = message.find("content");
  const bool none = content == message.end() || content->is_null();
  if (none) {
    const auto calls = sent.find("tool_calls");
    if (calls == sent.end() || calls->is_null()) refuse_message(index, "has no content");
    message["content"] = "";
  } else if (content->is_array()) {
    *content = text_of_parts(*content, index);
  } else if (!content->is_string()) {
    refuse_message(index, "content must be a string or a list of parts");
  }
  open_arguments(message, index);
  return message;
}

// Whether the answer may call tools, or must.
struct ToolChoice {
  bool may = false;
  bool must = false;
  std::string name;  // of the only one that it may call; empty: any
};

ToolChoice read_tool_choice(const Ordered& body, bool has_tools) {
  const auto choice = body.find("tool_choice");
  if (choice == body.end() || choice->is_null() || *choice == "auto") {
    return {.may = has_tools, .must = false, .name = {}};
  }
  if (*choice == "none") return {};
  if (!has_tools) refuse_member("tool_choice", "there are no tools to choose from");
  if (*choice == "required") return {.may = true, .must = true, .name = {}};
  const auto function = choice->is_object() ? choice->find("function") : choice->end();
  if (choice->is_object() && function != choice->end() && function->is_object() &&
      function->contains("name") && (*function)["name"].is_string()) {
    return {.may = true, .must = true, .name = (*function)["name"].get<std::string>()};
  }
  refuse_member("tool_choice",
                "must be \"none\", \"auto\", \"required\" or {\"type\": \"function\", "
                "\"function\": {\"name\": ...}}");
}

ToolChoice read_tools(const Ordered& body, Ordered& conversation) {
  const auto tools = body.find("tools");
  const bool given = tools != body.end() && !tools->is_null();
  if (given) {
    if (!tools->is_array() || tools->size() > kMostTools) {
      refuse_member("tools", fmt::format("must be a list of at most {} tools", kMostTools));
    }
    for (const Ordered& tool : *tools) {
      const auto function = tool.is_object() ? tool.find("function") : tool.end();
      if (!tool.is_object() || function == tool.end() || !function->is_object() ||
          !function->contains("name") || !(*function)["name"].is_string()) {
        refuse_member("tools",
                      "each must be {\"type\": \"function\", \"function\": {\"name\": ...}}");
      }
    }
  }
  ToolChoice choice = read_tool_choice(body, given && !tools->empty());
  if (choice.may) conversation["tools"] = *tools;
  return choice;
}

// Must run after parse_json() has bounded the text.
Ordered parse_ordered(std::string_view body) { return Ordered::parse(body.begin(), body.end()); }

}  // namespace

nlohmann::ordered_json read_conversation(const Ordered& body) {
  Ordered conversation = Ordered::object();
  if (const auto extra = body.find("chat_template_kwargs");
      extra != body.end() && !extra->is_null()) {
    if (!extra->is_object()) refuse_member("chat_template_kwargs", "must be an object");
    conversation = *extra;
  }
  const auto messages = body.find("messages");
  if (messages == body.end() || !messages->is_array() || messages->empty() ||
      messages->size() > kMostMessages) {
    refuse_member("messages", fmt::format("must be a list of 1 to {} messages", kMostMessages));
  }
  Ordered read = Ordered::array();
  for (std::size_t i = 0; i < messages->size(); ++i) {
    read.push_back(read_message((*messages)[i], i));
  }
  conversation["messages"] = std::move(read);
  const auto prompt = body.find("add_generation_prompt");
  const bool has_prompt = prompt != body.end() && !prompt->is_null();
  if (has_prompt && !prompt->is_boolean()) {
    refuse_member("add_generation_prompt", "must be true or false");
  }
  conversation["add_generation_prompt"] = has_prompt ? prompt->get<bool>() : true;
  return conversation;
}

ParsedChat parse_chat(std::string_view body, const RequestDefaults& defaults) {
  const Json json = parse_json(body, "the request's body");
  Fields fields(json);
  ParsedChat parsed;
  ChatRequest& request = parsed.request;
  request.common = read_generation(fields, defaults);
  if (const auto most = fields.integer("max_completion_tokens", 1, std::int64_t{1} << 31)) {
    request.common.max_tokens = most;
  }
  if (request.common.max_tokens == 0) refuse_member("max_tokens", "must be 1 or more");
  request.logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, kMostLogprobs);
  if (top.value_or(0) > 0 && !request.logprobs) {
    refuse_member("top_logprobs", "needs \"logprobs\": true");
  }
  request.top_logprobs = top.value_or(0);
  request.parallel_tool_calls = fields.boolean("parallel_tool_calls").value_or(true);
  if (const Json* modalities = fields.find("modalities");
      modalities != nullptr && *modalities != Json::array({"text"})) {
    refuse_member("modalities", "only [\"text\"] is supported");
  }
  const Ordered ordered = parse_ordered(body);
  request.conversation = read_conversation(ordered);
  std::optional<grammar::Spec>& structure = request.common.engine.structure;
  structure = read_structure(fields, body);
  const ToolChoice choice = read_tools(ordered, request.conversation);
  request.tools = choice.may;
  if (choice.must) {
    if (structure) refuse_member("tool_choice", "a call cannot have another form as well");
    structure = tool_call_structure(request.conversation["tools"], choice.name,
                                    defaults.tagged_calls, request.parallel_tool_calls);
  }
  for (const char* name :
       {"messages", "tools", "tool_choice", "chat_template_kwargs", "add_generation_prompt"}) {
    fields.find(name);
  }
  parsed.ignored = fields.unread();
  return parsed;
}

}  // namespace nibble::server
