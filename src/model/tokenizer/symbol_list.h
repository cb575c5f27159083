// Merging neighbours, best pair first: the loop that byte-pair encodings share.
#pragma once

#include <cstdint>
#include <optional>
#include <queue>
#include <vector>

namespace nibble {

struct MergeResult {
  double cost;      // the lowest merges first; equal costs from left to right
  std::int32_t id;  // what the pair becomes
};

// Appends to `out` what is left of `symbols` (at most 2^31 - 1) when no neighbours merge any more.
// find(left, right) is an optional MergeResult. O(n log n) calls of find for n symbols.
template <class Find>
void merge_symbols(const std::vector<std::int32_t>& symbols, const Find& find,
                   std::vector<std::int32_t>& out) {
  constexpr std::int32_t kNone = -1;
  // A doubly linked list in one array; a merged pair lives on in its left symbol.
  struct Symbol {
    std::int32_t id;  // kNone: merged away
    std::int32_t previous;
    std::int32_t next;
  };
  struct Candidate {
    double cost;
    std::int32_t position;
    std::int32_t id;
    bool operator<(const Candidate& other) const {  // the queue's top is the greatest
      return cost != other.cost ? cost > other.cost : position > other.position;
    }
  };
  const auto count = static_cast<std::int32_t>(symbols.size());
  std::vector<Symbol> list(symbols.size());
  std::vector<Candidate> first;
  for (std::int32_t i = 0; i < count; ++i) {
    list[i] = {symbols[i], i - 1, i + 1 < count ? i + 1 : kNone};
    if (i + 1 == count) continue;
    if (const auto merge = find(symbols[i], symbols[i + 1])) {
      first.push_back({merge->cost, i, merge->id});
    }
  }
  std::priority_queue<Candidate> queue({}, std::move(first));
  const auto offer = [&](std::int32_t left) {
    if (left == kNone || list[left].next == kNone) return;
    if (const auto merge = find(list[left].id, list[list[left].next].id)) {
      queue.push({merge->cost, left, merge->id});
    }
  };
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = list[best.position];
    if (left.id == kNone || left.next == kNone) continue;
    Symbol& right = list[left.next];
    const auto merge = find(left.id, right.id);
    if (!merge || merge->id != best.id) continue;  // a neighbour changed meanwhile
    left.id = best.id;
    right.id = kNone;
    left.next = right.next;
    if (left.next != kNone) list[left.next].previous = best.position;
    offer(best.position);
    offer(left.previous);
  }
  for (const Symbol& symbol : list) {
    if (symbol.id != kNone) out.push_back(symbol.id);
  }
}

}  // namespace nibble
