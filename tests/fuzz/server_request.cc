// Any body is a request or a clean error, any answer of a model is text and calls, and any form
// that is asked for can be followed.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "runtime/grammar/automaton.h"
#include "server/api_error.h"
#include "server/chat_request.h"
#include "server/completion_request.h"
#include "server/embedding_request.h"
#include "server/tool_calls.h"

namespace {

template <class Parse>
void try_parse(const Parse& parse) {
  try {
    parse();
  } catch (const nibble::Error&) {
    // The expected answers to most inputs.
  } catch (const nibble::server::ApiError&) {
  }
}

// Follows what may come next for some bytes, chosen by the body's.
void follow(const nibble::EngineRequest& request, std::string_view bytes) {
  if (!request.structure) return;
  static const auto vocabulary = [] {
    std::vector<std::string> texts = {"", "ab", "\":", "}]", "\xc3", "\xa9x", "<tool_call>"};
    for (int c = 0; c < 256; ++c) texts.emplace_back(1, static_cast<char>(c));
    return std::make_shared<const nibble::grammar::TokenTrie>(std::move(texts));
  }();
  nibble::grammar::Cursor cursor(
      std::make_shared<nibble::grammar::Automaton>(request.structure->network, vocabulary));
  for (const char byte : bytes.substr(0, 64)) {
    const auto mask = cursor.mask();
    auto id = static_cast<std::size_t>(static_cast<unsigned char>(byte));
    const auto most = static_cast<std::size_t>(vocabulary->vocab());
    for (std::size_t tries = 0; tries < most && !nibble::grammar::allows(*mask, id); ++tries)
      id = (id + 1) % most;
    if (!nibble::grammar::allows(*mask, id)) {
      if (!cursor.accepts()) __builtin_trap();  // all bytes are there: no dead ends
      return;
    }
    if (!cursor.advance(vocabulary->text(static_cast<std::int32_t>(id)))) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  nibble::server::RequestDefaults defaults;
  defaults.vocab = 1000;
  try_parse([&] {
    follow(nibble::server::parse_completion(body, defaults).request.common.engine, body);
  });
  try_parse(
      [&] { follow(nibble::server::parse_chat(body, defaults).request.common.engine, body); });
  try_parse([&] { nibble::server::parse_embedding(body, {.vocab = 1000, .dimensions = 8}); });
  nibble::server::ToolCallParser parser;
  parser.push(body.substr(0, size / 2));
  parser.push(body.substr(size / 2));
  parser.finish();
  return 0;
}
