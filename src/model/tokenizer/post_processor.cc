#include "model/tokenizer/post_processor.h"

#include "base/error.h"
#include "model/tokenizer/json_fields.h"

namespace nibble {
namespace {

constexpr const char* kWhat = "tokenizer: post_processor";

std::int32_t checked_id(const Json& id, const Vocab& vocab) {
  const bool fits = id.is_number_integer() && id >= 0 && id < vocab.size();
  if (!fits || !vocab.has(id.get<std::int32_t>())) {
    fail(ErrorKind::kCorrupt, "{}: no token has the id {}", kWhat, id.dump().substr(0, 32));
  }
  return id.get<std::int32_t>();
}

// "cls" and "sep" of BERT and RoBERTa: ["[CLS]", 101].
std::int32_t pair_id(const Json& json, const char* key, const Vocab& vocab) {
  const Json& pair = array_field(json, key, kWhat);
  if (pair.size() != 2) fail(ErrorKind::kCorrupt, "{}: '{}' is no [token, id]", kWhat, key);
  return checked_id(pair[1], vocab);
}

PostProcessor make_template(const Json& json, const Vocab& vocab) {
  PostProcessor made;
  bool after_text = false;
  for (const Json& item : array_field(json, "single", kWhat)) {
    if (!field(item, "Sequence", kWhat).is_null()) {
      if (after_text) fail(ErrorKind::kUnsupported, "{}: the template repeats the text", kWhat);
      after_text = true;
      continue;
    }
    const std::string name = string_field(field(item, "SpecialToken", kWhat), "id", kWhat);
    const Json& token = field(field(json, "special_tokens", kWhat), name, kWhat);
    if (token.is_null()) fail(ErrorKind::kCorrupt, "{}: no special token '{}'", kWhat, name);
    for (const Json& id : array_field(token, "ids", kWhat)) {
      (after_text ? made.after : made.before).push_back(checked_id(id, vocab));
    }
  }
  if (!after_text) fail(ErrorKind::kUnsupported, "{}: the template lacks the text", kWhat);
  return made;
}

// Each part wraps what the parts before it made.
PostProcessor make_sequence(const Json& json, const Vocab& vocab) {
  PostProcessor made;
  for (const Json& part : array_field(json, "processors", kWhat)) {
    PostProcessor outer = make_post_processor(part, vocab);
    made.before.insert(made.before.begin(), outer.before.begin(), outer.before.end());
    made.after.insert(made.after.end(), outer.after.begin(), outer.after.end());
  }
  return made;
}

}  // namespace

PostProcessor make_post_processor(const Json& json, const Vocab& vocab) {
  if (json.is_null()) return {};
  const std::string type = string_field(json, "type", kWhat);
  if (type == "ByteLevel") return {};  // moves offsets only
  if (type == "TemplateProcessing") return make_template(json, vocab);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    return {{pair_id(json, "cls", vocab)}, {pair_id(json, "sep", vocab)}};
  }
  if (type == "Sequence") return make_sequence(json, vocab);
  fail(ErrorKind::kUnsupported, "{}: type '{}'", kWhat, type);
}

}  // namespace nibble
