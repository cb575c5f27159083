// A grammar as automata over the bytes of UTF-8, one a rule, that call each other.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/grammar/expression.h"

namespace nibble::grammar {

struct Network {
  enum class Kind : std::uint8_t {
    kBytes,  // a byte of [low, high], then `next`
    kSplit,  // `next` or `other`
    kCall,   // the automaton that starts at `other`, then `next`
    kEnd,    // of an automaton
    kFail,   // no text leads from here to the end
  };
  struct Node {
    Kind kind = Kind::kFail;
    std::uint8_t low = 0;
    std::uint8_t high = 0;
    std::int32_t next = -1;
    std::int32_t other = -1;
  };
  std::vector<Node> nodes;
  std::int32_t start = 0;
};

// Every node but kFail leads to the end, so that a text is never led astray. kUsage when no finite
// text fits, when a rule is left-recursive (directly or not), or when the network would have more
// than 131,072 nodes. Takes time in proportion to the rules and the network.
Network compile(const RuleSet& rules);

}  // namespace nibble::grammar
