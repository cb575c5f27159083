#include "model/tokenizer/chat_template.h"

#include "base/error.h"
#include "base/file.h"
#include "model/tokenizer/jinja/interpreter.h"
#include "model/tokenizer/jinja/parser.h"
#include "model/tokenizer/json_fields.h"

namespace nibble {
namespace {

std::string render_checked(std::string_view template_text, const jinja::Value& context) {
  constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
  if (template_text.size() > kMaxBytes || !is_valid_utf8(template_text)) {
    fail(ErrorKind::kCorrupt, "chat template: larger than 1 MiB or not valid UTF-8");
  }
  if (context.dict() == nullptr) fail(ErrorKind::kUsage, "chat template: context is no object");
  return jinja::render(jinja::parse(template_text), context);
}

// A text, or a list of {"name", "template"}.
std::optional<std::string> template_of(const Json& value, const std::string& what) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return std::nullopt;
  for (const Json& named : value) {
    if (string_field(named, "name", what) == "default") {
      return string_field(named, "template", what);
    }
  }
  return std::nullopt;
}

}  // namespace

std::string apply_chat_template(std::string_view template_text, const Json& context) {
  return render_checked(template_text, jinja::from_json(context));
}

std::string apply_chat_template(std::string_view template_text,
                                const nlohmann::ordered_json& context) {
  return render_checked(template_text, jinja::from_json(context));
}

std::optional<std::string> chat_template_of(const Json& tokenizer_config) {
  constexpr const char* kWhat = "tokenizer_config.json";
  return template_of(field(tokenizer_config, "chat_template", kWhat), kWhat);
}

std::optional<std::string> load_chat_template(const std::filesystem::path& checkpoint_dir) {
  const auto alone = checkpoint_dir / "chat_template.jinja";
  if (std::filesystem::exists(alone)) return read_text_file(alone);
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    const std::string file = (checkpoint_dir / name).string();
    if (!std::filesystem::exists(file)) continue;
    const Json json = read_json_file(file);
    if (auto found = template_of(field(json, "chat_template", file), file)) return found;
  }
  return std::nullopt;
}

std::string_view fallback_chat_template() {
  return "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}\n"
         "\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
}

}  // namespace nibble
