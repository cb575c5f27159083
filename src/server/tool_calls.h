// Calls of tools that a model writes into its answer, found while the text streams.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nibble::server {

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON text of an object
};

// Knows two ways of writing a call:
// - Hermes and Qwen: <tool_call>{"name": ..., "arguments": {...}}</tool_call>, any number of them,
//   text before and between;
// - Llama 3: the whole answer is {"name": ..., "parameters": {...}}, or several divided by ";",
//   perhaps after <|python_tag|>.
// What looks like a call but is none (no JSON, no name, unfinished) stays text. Not thread-safe.
class ToolCallParser {
 public:
  struct Found {
    std::string text;  // certain to be no part of a call
    std::vector<ToolCall> calls;
  };
  Found push(std::string_view piece);
  Found finish();  // at the end of the answer

 private:
  void take_tagged(Found& found);

  enum class Form { kUndecided, kTagged, kWholeAnswer };
  Form form_ = Form::kUndecided;
  std::string pending_;
};

}  // namespace nibble::server
