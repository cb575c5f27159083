#include "server/token_text.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

namespace nibble::server {
namespace {

// JSON has no infinity: what can never come is as unlikely as a float can say, as in vLLM.
constexpr float kNever = -9999;

float finite(float logprob) { return std::max(logprob, kNever); }

std::string name_of(std::int32_t id, const TokenText& text, bool as_ids) {
  return as_ids ? fmt::format("token_id:{}", id) : text(id);
}

std::int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](unsigned char c) { return (c & 0xc0) != 0x80; });
}

Json chat_entry(const TokenLogprob& one, const TokenText& text, bool as_ids) {
  const std::string token = name_of(one.id, text, as_ids);
  // A token that is part of a character has no text, and its bytes are not known here.
  const bool whole = token.find("\ufffd") == std::string::npos;
  Json bytes;
  if (whole) {
    bytes = Json::array();
    for (const char c : token) bytes.push_back(static_cast<unsigned char>(c));
  }
  return {{"token", token}, {"logprob", finite(one.logprob)}, {"bytes", std::move(bytes)}};
}

}  // namespace

TokenText::TokenText(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer), anchor_(tokenizer.encode("a", {.add_special = false})) {
  if (!anchor_.empty()) anchor_text_ = tokenizer.decode(anchor_, false);
}

std::string TokenText::operator()(std::int32_t id) const {
  if (id >= tokenizer_.vocab_size()) return "";  // a row that pads the model's head
  std::vector<std::int32_t> ids = anchor_;
  ids.push_back(id);
  const std::string text = tokenizer_.decode(ids, false);
  if (text.starts_with(anchor_text_)) return text.substr(anchor_text_.size());
  return tokenizer_.decode({id}, false);
}

Json CompletionLogprobs::empty() {
  return {{"tokens", Json::array()},
          {"token_logprobs", Json::array()},
          {"top_logprobs", Json::array()},
          {"text_offset", Json::array()}};
}

void CompletionLogprobs::add(const EngineToken& token, bool known) {
  pending_["tokens"].push_back(name_of(token.chosen.id, text_, as_ids_));
  pending_["text_offset"].push_back(offset_);
  offset_ += characters(text_(token.chosen.id));
  if (!known) {
    pending_["token_logprobs"].push_back(nullptr);
    pending_["top_logprobs"].push_back(nullptr);
    return;
  }
  pending_["token_logprobs"].push_back(finite(token.chosen.logprob));
  Json top = Json::object();
  // The first of two tokens of one spelling is the likelier.
  for (const TokenLogprob& one : token.likeliest) {
    top.emplace(name_of(one.id, text_, as_ids_), finite(one.logprob));
  }
  top.emplace(name_of(token.chosen.id, text_, as_ids_), finite(token.chosen.logprob));
  pending_["top_logprobs"].push_back(std::move(top));
}

Json CompletionLogprobs::take() { return std::exchange(pending_, empty()); }

Json chat_logprob(const EngineToken& token, const TokenText& text, bool as_ids) {
  Json entry = chat_entry(token.chosen, text, as_ids);
  entry["top_logprobs"] = Json::array();
  for (const TokenLogprob& one : token.likeliest) {
    entry["top_logprobs"].push_back(chat_entry(one, text, as_ids));
  }
  return entry;
}

}  // namespace nibble::server
