#include "server/embedding_request.h"

#include <fmt/format.h>

#include "server/api_error.h"

namespace nibble::server {
namespace {

bool wants_base64(Fields& fields) {
  const std::string format = fields.text("encoding_format").value_or("float");
  if (format == "base64") return true;
  if (format != "float") {
    refuse_member("encoding_format", fmt::format("'{}' is neither float nor base64", format));
  }
  return false;
}

}  // namespace

ParsedEmbedding parse_embedding(std::string_view body, const EmbeddingDefaults& defaults) {
  constexpr std::int64_t kLongest = std::int64_t{1} << 30;
  const Json json = parse_json(body, "the request's body");
  Fields fields(json);
  ParsedEmbedding parsed;
  EmbeddingRequest& request = parsed.request;
  request.model = fields.text("model").value_or("");
  request.inputs = read_prompts(fields, "input", defaults.vocab);
  request.base64 = wants_base64(fields);
  request.dimensions =
      fields.integer("dimensions", 1, defaults.dimensions).value_or(defaults.dimensions);
  request.normalize = fields.boolean("normalize").value_or(defaults.normalize);
  request.add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  request.truncate = fields.integer("truncate_prompt_tokens", -1, kLongest);
  if (request.truncate == 0) refuse_member("truncate_prompt_tokens", "0 leaves nothing");
  fields.text("user");  // OpenAI's, for its own use
  parsed.ignored = fields.unread();
  return parsed;
}

}  // namespace nibble::server
