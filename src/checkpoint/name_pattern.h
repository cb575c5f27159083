// Names of modules as compressed-tensors configs write them: exact, or "re:" and a regular
// expression that must match from the beginning of the name (Python's re.match).
#pragma once

#include <memory>
#include <string>

namespace nibble {

// Immutable and thread-safe.
class NamePattern {
 public:
  // kCorrupt, naming the text, when the expression does not compile.
  explicit NamePattern(const std::string& text);

  // kUnsupported when the expression needs more backtracking than is sane.
  bool matches(const std::string& name) const;

 private:
  std::string text_;
  std::shared_ptr<const void> regex_;  // null for an exact name
};

}  // namespace nibble
