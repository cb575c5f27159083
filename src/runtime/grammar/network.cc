#include "runtime/grammar/network.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "base/error.h"
#include "model/tokenizer/unicode.h"

namespace nibble::grammar {
namespace {

using Kind = Network::Kind;
constexpr std::size_t kMostNodes = std::size_t{1} << 17;

struct ByteRange {
  std::uint8_t low, high;
};
using ByteRanges = std::vector<ByteRange>;

// Characters [first, last] as sequences of byte ranges: cut where the length of UTF-8 changes, and
// then so that all bytes behind the first that differs run through their whole range.
void add_utf8_sequences(char32_t first, char32_t last, std::vector<ByteRanges>& out) {
  for (const char32_t limit : {U'\x7F', U'\u07FF', U'\uFFFF'}) {
    if (first <= limit && last > limit) {
      add_utf8_sequences(first, limit, out);
      add_utf8_sequences(limit + 1, last, out);
      return;
    }
  }
  for (int bits = 6; bits <= 18 && last >= 0x80; bits += 6) {
    const char32_t mask = (char32_t{1} << bits) - 1;
    if ((first & ~mask) == (last & ~mask)) break;
    if ((first & mask) != 0) {
      add_utf8_sequences(first, first | mask, out);
      add_utf8_sequences((first | mask) + 1, last, out);
      return;
    }
    if ((last & mask) != mask) {
      add_utf8_sequences(first, (last & ~mask) - 1, out);
      add_utf8_sequences(last & ~mask, last, out);
      return;
    }
  }
  std::string low, high;
  append_utf8(low, first);
  append_utf8(high, last);
  ByteRanges sequence;
  for (std::size_t i = 0; i < low.size(); ++i) {
    sequence.push_back({static_cast<std::uint8_t>(low[i]), static_cast<std::uint8_t>(high[i])});
  }
  out.push_back(std::move(sequence));
}

// Builds backwards: each expression is given the node that follows it.
class Compiler {
 public:
  explicit Compiler(const RuleSet& rules) : rules_(rules) {}

  Network compile() {
    for (const Expr& body : rules_.bodies) starts_.push_back(build(body, add({Kind::kEnd})));
    for (Network::Node& node : network_.nodes) {
      if (node.kind == Kind::kCall && node.other < 0) {
        node.other = starts_[static_cast<std::size_t>(-1 - node.other)];
      }
    }
    refuse_left_recursion();
    prune();
    network_.start = starts_[static_cast<std::size_t>(rules_.root)];
    if (at(network_.start).kind == Kind::kFail) {
      fail(ErrorKind::kUsage, "grammar: no finite text fits it");
    }
    return std::move(network_);
  }

 private:
  Network::Node& at(std::int32_t node) { return network_.nodes[static_cast<std::size_t>(node)]; }

  std::int32_t add(const Network::Node& node) {
    if (network_.nodes.size() >= kMostNodes) {
      fail(ErrorKind::kUsage,
           "grammar: it is too large (more than {} states); allow fewer repetitions or shorter "
           "texts",
           kMostNodes);
    }
    network_.nodes.push_back(node);
    return static_cast<std::int32_t>(network_.nodes.size()) - 1;
  }

  std::int32_t split(std::int32_t a, std::int32_t b) { return add({Kind::kSplit, 0, 0, a, b}); }

  std::int32_t build(const Expr& expr, std::int32_t next) {
    switch (expr.kind) {
      case Expr::Kind::kSequence:
        for (auto part = expr.parts.rbegin(); part != expr.parts.rend(); ++part) {
          next = build(*part, next);
        }
        return next;
      case Expr::Kind::kChoice:
        return build_choice(expr, next);
      case Expr::Kind::kChars:
        return build_chars(expr.chars, next);
      case Expr::Kind::kRepeat:
        return build_repeat(expr, next);
      case Expr::Kind::kRule:  // the start of a rule may not be there yet: see compile()
        return add({Kind::kCall, 0, 0, next, -1 - expr.rule});
    }
    fail(ErrorKind::kInternal, "grammar: an unknown kind of expression");
  }

  std::int32_t build_choice(const Expr& expr, std::int32_t next) {
    if (expr.parts.empty()) return add({Kind::kFail});
    std::int32_t node = build(expr.parts.back(), next);
    for (std::size_t i = expr.parts.size() - 1; i-- > 0;) {
      node = split(build(expr.parts[i], next), node);
    }
    return node;
  }

  std::int32_t build_chars(const CharSet& set, std::int32_t next) {
    std::vector<ByteRanges> sequences;
    for (const CharRange& range : set) add_utf8_sequences(range.first, range.last, sequences);
    if (sequences.empty()) return add({Kind::kFail});
    std::map<std::pair<std::int32_t, std::pair<int, int>>, std::int32_t> shared;  // equal endings
    std::int32_t node = -1;
    for (const ByteRanges& sequence : sequences) {
      std::int32_t one = next;
      for (auto range = sequence.rbegin(); range != sequence.rend(); ++range) {
        const auto [place, fresh] = shared.try_emplace({one, {range->low, range->high}}, -1);
        if (fresh) place->second = add({Kind::kBytes, range->low, range->high, one, -1});
        one = place->second;
      }
      node = node < 0 ? one : split(one, node);
    }
    return node;
  }

  // What is repeated becomes an automaton of its own unless it is small: then a repetition costs
  // one node or two.
  std::int32_t build_repeat(const Expr& expr, std::int32_t next) {
    const Expr& body = expr.parts.front();
    const bool many = expr.least > 1 || expr.most > 1;
    const std::size_t before = network_.nodes.size();
    std::int32_t start = -1;
    if (many) {
      start = build(body, add({Kind::kEnd}));
      const bool small = network_.nodes.size() - before <= 3;
      if (small) start = -1;
    }
    const auto once = [&](std::int32_t then) {
      return start < 0 ? build(body, then) : add({Kind::kCall, 0, 0, then, start});
    };
    if (expr.most == Expr::kUnbounded) {
      const std::int32_t loop = split(-1, next);
      const std::int32_t again = once(loop);
      at(loop).next = again;
      next = loop;
    } else {
      const std::int32_t after = next;
      for (std::int64_t i = expr.least; i < expr.most; ++i) next = split(once(next), after);
    }
    for (std::int64_t i = 0; i < expr.least; ++i) next = once(next);
    return next;
  }

  static bool can(const Network::Node& node, const std::vector<bool>& known, bool with_bytes) {
    const auto next = static_cast<std::size_t>(node.next);
    switch (node.kind) {
      case Kind::kEnd:
        return true;
      case Kind::kBytes:
        return with_bytes && known[next];
      case Kind::kSplit:
        return known[next] || known[static_cast<std::size_t>(node.other)];
      case Kind::kCall:
        return known[next] && known[static_cast<std::size_t>(node.other)];
      case Kind::kFail:
        return false;
    }
    return false;
  }

  // A walk that reads no byte and comes back to a call that it has not returned from would go on
  // for ever. Iterative depth-first search over the nodes: "enter" edges lead into calls.
  void refuse_left_recursion() {
    const std::vector<bool> empty = reaching_end(false);  // whose text may be empty
    // Which automata may be entered from which start without a byte.
    std::map<std::int32_t, std::vector<std::int32_t>> entered;
    std::vector<std::int32_t> starts;
    for (const Network::Node& node : network_.nodes) {
      if (node.kind == Kind::kCall) starts.push_back(node.other);
    }
    std::sort(starts.begin(), starts.end());
    starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
    std::size_t work = 0;
    for (const std::int32_t start : starts) {
      entered[start] = calls_at_the_left(start, empty, work);
    }
    std::map<std::int32_t, int> colour;  // 1: on the path, 2: done
    for (const std::int32_t start : starts) {
      std::vector<std::pair<std::int32_t, std::size_t>> path = {{start, 0}};
      if (colour[start] != 0) continue;
      colour[start] = 1;
      while (!path.empty()) {
        auto& [node, edge] = path.back();
        const auto& edges = entered[node];
        if (edge == edges.size()) {
          colour[node] = 2;
          path.pop_back();
          continue;
        }
        const std::int32_t next = edges[edge++];
        if (colour[next] == 1) refuse_recursion(next);
        if (colour[next] == 0) {
          colour[next] = 1;
          path.emplace_back(next, 0);
        }
      }
    }
  }

  [[noreturn]] void refuse_recursion(std::int32_t start) const {
    const auto rule = std::find(starts_.begin(), starts_.end(), start);
    fail(ErrorKind::kUsage,
         "grammar: rule '{}' begins with itself (left recursion); write it as a repetition",
         rule == starts_.end() ? "a repetition"
                               : rules_.names[static_cast<std::size_t>(rule - starts_.begin())]);
  }

  std::vector<std::int32_t> calls_at_the_left(std::int32_t start, const std::vector<bool>& empty,
                                              std::size_t& work) {
    constexpr std::size_t kMostWork = std::size_t{1} << 24;
    std::vector<std::int32_t> calls;
    std::vector<std::int32_t> open = {start};
    std::map<std::int32_t, bool> seen = {{start, true}};
    const auto visit = [&](std::int32_t node) {
      if (seen.emplace(node, true).second) open.push_back(node);
    };
    while (!open.empty()) {
      if (++work > kMostWork) fail(ErrorKind::kUsage, "grammar: its rules are too entangled");
      const Network::Node node = at(open.back());
      open.pop_back();
      if (node.kind == Kind::kSplit) {
        visit(node.next);
        visit(node.other);
      } else if (node.kind == Kind::kCall) {
        calls.push_back(node.other);
        if (empty[static_cast<std::size_t>(node.other)]) visit(node.next);
      }
    }
    std::sort(calls.begin(), calls.end());
    calls.erase(std::unique(calls.begin(), calls.end()), calls.end());
    return calls;
  }

  // Nodes from which an end can be reached (with or without bytes on the way): spread backwards.
  std::vector<bool> reaching_end(bool with_bytes) {
    const auto count = network_.nodes.size();
    std::vector<std::vector<std::int32_t>> before(count);
    for (std::size_t i = 0; i < count; ++i) {
      const Network::Node& node = network_.nodes[i];
      for (const std::int32_t to : {node.next, node.other}) {
        if (to >= 0) before[static_cast<std::size_t>(to)].push_back(static_cast<std::int32_t>(i));
      }
    }
    std::vector<bool> ends(count);
    std::vector<std::int32_t> open;
    const auto mark = [&](std::int32_t node) {
      if (ends[static_cast<std::size_t>(node)] || !can(at(node), ends, with_bytes)) return;
      ends[static_cast<std::size_t>(node)] = true;
      open.push_back(node);
    };
    for (std::size_t i = 0; i < count; ++i) mark(static_cast<std::int32_t>(i));
    while (!open.empty()) {
      const std::int32_t node = open.back();
      open.pop_back();
      for (const std::int32_t one : before[static_cast<std::size_t>(node)]) mark(one);
    }
    return ends;
  }

  void prune() {
    const std::vector<bool> ends = reaching_end(true);
    for (std::size_t i = 0; i < ends.size(); ++i) {
      if (!ends[i]) network_.nodes[i] = {Kind::kFail};
    }
  }

  const RuleSet& rules_;
  Network network_;
  std::vector<std::int32_t> starts_;
};

}  // namespace

Network compile(const RuleSet& rules) { return Compiler(rules).compile(); }

}  // namespace nibble::grammar
