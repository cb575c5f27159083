#include "server/structured_output.h"

#include <utility>

#include "runtime/grammar/parse_ebnf.h"
#include "server/api_error.h"

namespace nibble::server {
namespace {

using Ordered = nlohmann::ordered_json;
using grammar::SpecKind;

grammar::Spec spec_of(const std::string& member, SpecKind kind, const std::string& text) {
  try {
    return grammar::make_spec(kind, text);
  } catch (const Error& error) {
    refuse_member(member, error.what());
  }
}

// A schema may be sent as an object or as its text.
std::string schema_text(const std::string& member, const Ordered& schema) {
  if (schema.is_string()) return schema.get<std::string>();
  if (!schema.is_object() && !schema.is_boolean()) refuse_member(member, "must be a JSON schema");
  return schema.dump();
}

std::string text_of(const std::string& member, const Ordered& value) {
  if (!value.is_string()) refuse_member(member, "must be a string");
  return value.get<std::string>();
}

std::string one_of(const std::string& member, const Ordered& choices) {
  if (!choices.is_array() || choices.empty()) {
    refuse_member(member, "must be a list of strings, not empty");
  }
  std::string text = "root ::= ";
  for (const Ordered& one : choices) {
    if (&one != &choices.front()) text += " | ";
    text += grammar::ebnf_literal(text_of(member, one));
  }
  return text;
}

constexpr const char* kAnyObject = R"({"type": "object"})";

std::optional<grammar::Spec> response_format(const Ordered& format) {
  const std::string member = "response_format";
  const Ordered type = format.is_object() ? format.value("type", Ordered()) : Ordered();
  if (type == "text") return std::nullopt;
  if (type == "json_object") return spec_of(member, SpecKind::kJsonSchema, kAnyObject);
  if (type != "json_schema") {
    refuse_member(member, "its type must be \"text\", \"json_object\" or \"json_schema\"");
  }
  const auto inside = format.find("json_schema");
  if (inside == format.end() || !inside->is_object() || !inside->contains("schema")) {
    refuse_member(member, "has no json_schema with a schema");
  }
  return spec_of(member, SpecKind::kJsonSchema, schema_text(member, (*inside)["schema"]));
}

// Of one member's value, under whatever name: json, regex, choice, grammar, json_object.
grammar::Spec structure(const std::string& member, std::string_view what, const Ordered& value) {
  if (what == "json") return spec_of(member, SpecKind::kJsonSchema, schema_text(member, value));
  if (what == "regex") return spec_of(member, SpecKind::kRegex, text_of(member, value));
  if (what == "choice") return spec_of(member, SpecKind::kEbnf, one_of(member, value));
  if (what == "grammar") return spec_of(member, SpecKind::kEbnf, text_of(member, value));
  if (what == "json_object" && value == true) {
    return spec_of(member, SpecKind::kJsonSchema, kAnyObject);
  }
  refuse_member(member, fmt::format("'{}' is not supported", what));
}

std::optional<grammar::Spec> vllm_structure(const Ordered& object) {
  const std::string member = "structured_outputs";
  if (!object.is_object()) refuse_member(member, "must be an object");
  std::optional<grammar::Spec> spec;
  for (const auto& [key, value] : object.items()) {
    if (value.is_null() || value == false) continue;
    if (spec) refuse_member(member, "asks for two things at once");
    spec = structure(member, key, value);
  }
  return spec;
}

constexpr std::pair<const char*, const char*> kMembers[] = {
    {"guided_json", "json"},       {"guided_regex", "regex"}, {"guided_choice", "choice"},
    {"guided_grammar", "grammar"}, {"json_schema", "json"},   {"grammar", "grammar"},
    {"response_format", ""},       {"structured_outputs", ""}};

}  // namespace

std::optional<grammar::Spec> read_structure(Fields& fields, std::string_view body) {
  std::optional<grammar::Spec> spec;
  Ordered ordered;
  for (const auto& [name, what] : kMembers) {
    if (fields.find(name) == nullptr) continue;
    if (ordered.is_null()) ordered = Ordered::parse(body.begin(), body.end());
    const Ordered& value = ordered[name];
    const std::string member = name;
    if (value == "" && member == "grammar") continue;
    std::optional<grammar::Spec> one = member == "response_format" ? response_format(value)
                                       : member == "structured_outputs"
                                           ? vllm_structure(value)
                                           : structure(name, what, value);
    if (!one) continue;
    if (spec) refuse_member(member, "the answer's form is asked for twice");
    spec = std::move(one);
  }
  return spec;
}

grammar::Spec tool_call_structure(const Ordered& tools, const std::string& name, bool tagged,
                                  bool parallel) {
  std::string calls;
  for (const Ordered& tool : tools) {
    const Ordered& function = tool["function"];
    const auto one = function["name"].get<std::string>();
    if (!name.empty() && one != name) continue;
    const Ordered parameters = function.value("parameters", Ordered());
    const Ordered schema = parameters.is_object() && !parameters.empty()
                               ? parameters
                               : Ordered{{"type", "object"}, {"additionalProperties", false}};
    const std::string begin = fmt::format("{{\"name\": {}, \"{}\": ", Ordered(one).dump(),
                                          tagged ? "arguments" : "parameters");
    if (!calls.empty()) calls += " | ";
    calls += grammar::ebnf_literal(begin) + " %json" + schema.dump() + " \"}\"";
  }
  if (calls.empty()) {
    refuse_member("tool_choice", "names '" + name + "', which is none of the tools");
  }
  std::string text = "root ::= call\ncall ::= " + calls;
  if (tagged) {
    text = R"(root ::= tagged)" + std::string(parallel ? R"( ("\n" tagged)*)" : "") +
           "\ntagged ::= \"<tool_call>\\n\" call \"\\n</tool_call>\"\ncall ::= " + calls;
  }
  return spec_of("tools", SpecKind::kEbnf, text);
}

}  // namespace nibble::server
