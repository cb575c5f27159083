#include "runtime/grammar/json_containers.h"

#include <algorithm>
#include <utility>

namespace nibble::grammar {

Expr JsonContainers::text(std::int64_t least, std::int64_t most) {
  return sequence({literal("\""), repeat(character(), least, most), literal("\"")});
}

Expr JsonContainers::list(const std::vector<Expr>& fixed, const std::optional<Expr>& more,
                          const Counts& counts) {
  const auto known = static_cast<std::int64_t>(fixed.size());
  if (!more && counts.least > known) return choice({});
  std::vector<Expr> parts = {literal("["), space()};
  for (std::size_t i = 0; i < fixed.size(); ++i) {
    if (i > 0) parts.push_back(comma());
    parts.push_back(fixed[i]);
  }
  const auto rest_least = counts.least - known;
  const auto rest_most = counts.most == Expr::kUnbounded ? Expr::kUnbounded : counts.most - known;
  if (more && rest_most != 0) {
    const Expr next = sequence({comma(), *more});
    if (known > 0) {
      parts.push_back(repeat(next, rest_least, rest_most));
    } else {
      const auto after = rest_most == Expr::kUnbounded ? rest_most : rest_most - 1;
      const Expr some =
          sequence({*more, repeat(next, std::max<std::int64_t>(rest_least - 1, 0), after)});
      parts.push_back(rest_least > 0 ? some : optional(some));
    }
  }
  parts.push_back(space());
  parts.push_back(literal("]"));
  return sequence(std::move(parts));
}

Expr JsonContainers::free_object(const std::optional<Expr>& other, const Counts& counts) {
  if (counts.impossible() || (!other && counts.least > 0)) return choice({});
  const bool none = !other || counts.most == 0;
  if (none) return sequence({literal("{"), space(), literal("}")});
  const auto after = counts.most == Expr::kUnbounded ? counts.most : counts.most - 1;
  Expr some = sequence({*other, repeat(sequence({comma(), *other}), 0, after)});
  if (counts.least == 0) some = optional(std::move(some));
  return sequence({literal("{"), space(), std::move(some), space(), literal("}")});
}

// From the last property to the first: what may follow when nothing has been written yet, and
// when something has (then a comma comes first). Both are rules, so that they are said once.
Expr JsonContainers::named_object(const std::vector<Property>& named,
                                  const std::optional<Expr>& other) {
  Expr fresh, begun;
  if (other) {
    begun = repeat(sequence({comma(), *other}), 0, Expr::kUnbounded);
    fresh = optional(sequence({*other, begun}));
  }
  for (auto property = named.rbegin(); property != named.rend(); ++property) {
    const Expr text = rule(rules_.add("property", property->text));
    const Expr rest = rule(rules_.add("properties", std::move(begun)));
    begun = sequence({comma(), text, rest});
    Expr first = sequence({text, rest});
    if (property->required) {
      fresh = std::move(first);
    } else {
      begun = choice({std::move(begun), rest});
      fresh = choice({std::move(first), rule(rules_.add("properties", std::move(fresh)))});
    }
  }
  return sequence({literal("{"), space(), std::move(fresh), space(), literal("}")});
}

Expr JsonContainers::any() {
  if (any_ >= 0) return rule(any_);
  any_ = rules_.add("value");
  const Expr member = sequence({text(), literal(":"), space(), rule(any_)});
  Expr body = choice({free_object(member, {}), list({}, rule(any_), {}), text(), json_number({}),
                      literal("true"), literal("false"), literal("null")});
  rules_.bodies[static_cast<std::size_t>(any_)] = std::move(body);
  return rule(any_);
}

}  // namespace nibble::grammar
