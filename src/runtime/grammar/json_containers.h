// The texts of JSON's lists and objects as expressions, and of any value at all.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/grammar/expression.h"
#include "runtime/grammar/json_text.h"

namespace nibble::grammar {

struct Counts {
  std::int64_t least = 0;
  std::int64_t most = Expr::kUnbounded;
  bool any() const { return least > 0 || most != Expr::kUnbounded; }
  bool impossible() const { return most != Expr::kUnbounded && most < least; }
};

struct Property {
  Expr text;  // name, colon and value
  bool required = false;
};

// What they share becomes rules, once for each object of this class. Not thread-safe.
class JsonContainers {
 public:
  // `rules` must outlive it.
  explicit JsonContainers(RuleSet& rules) : rules_(rules) {}

  Expr space() { return shared(space_, "space", json_space); }
  Expr comma() { return sequence({literal(","), space()}); }
  // A string of so many characters.
  Expr text(std::int64_t least = 0, std::int64_t most = Expr::kUnbounded);
  // The fixed elements, all of them, and then any number of `more` if that is something, `counts`
  // together; counts.most is not less than the number of fixed ones.
  Expr list(const std::vector<Expr>& fixed, const std::optional<Expr>& more, const Counts& counts);
  // Properties that are all alike, if there may be any; counts.least is 0 or 1.
  Expr free_object(const std::optional<Expr>& other, const Counts& counts);
  // Named ones in their order, and behind them others if there may be any.
  Expr named_object(const std::vector<Property>& named, const std::optional<Expr>& other);
  Expr any();

 private:
  Expr shared(std::int32_t& id, const char* name, Expr (*make)()) {
    if (id < 0) id = rules_.add(name, make());
    return rule(id);
  }
  Expr character() { return shared(character_, "character", json_character); }

  RuleSet& rules_;
  std::int32_t space_ = -1;
  std::int32_t character_ = -1;
  std::int32_t any_ = -1;
};

}  // namespace nibble::grammar
