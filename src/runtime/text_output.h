// The text of an answer while its tokens arrive.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/tokenizer/tokenizer.h"
#include "runtime/stop_strings.h"

namespace nibble {

// Gives text as it becomes certain: whole UTF-8 characters, never a part of a stop string. Without
// a tokenizer there is no text. Keeps a reference to the tokenizer. Not thread-safe.
class TextOutput {
 public:
  // kUsage when a stop string is empty.
  TextOutput(const Tokenizer* tokenizer, std::vector<std::string> stop);

  // What the token makes certain. Once stopped() nothing more comes. A token that may not stop the
  // answer is not looked at for stop strings.
  std::string push(std::int32_t id, bool may_stop = true);
  // What was held back, at the end of the answer.
  std::string flush();
  bool stopped() const { return stop_.stopped(); }

 private:
  std::optional<StreamDecoder> decoder_;
  StopStrings stop_;
};

}  // namespace nibble
