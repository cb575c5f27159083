// Any body is a request or a clean error, and any answer of a model is text and calls.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "server/api_error.h"
#include "server/chat_request.h"
#include "server/completion_request.h"
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  nibble::server::RequestDefaults defaults;
  defaults.vocab = 1000;
  try_parse([&] { nibble::server::parse_completion(body, defaults); });
  try_parse([&] { nibble::server::parse_chat(body, defaults); });
  nibble::server::ToolCallParser parser;
  parser.push(body.substr(0, size / 2));
  parser.push(body.substr(size / 2));
  parser.finish();
  return 0;
}
