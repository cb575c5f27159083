// Which tokens may come next in a text that must fit a grammar.
//
// The network of a grammar (network.h) is run on all of its paths at once; what it can be in the
// middle of at some place - nodes, each with the calls it returns to - is a state. States and the
// steps between them are made when they are first needed and kept, so that reading a byte is mostly
// a look-up, and so is the mask of a state that was seen before. A mask is worked out in one walk
// through the vocabulary's prefix tree that leaves out what lies below a byte that does not fit.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/grammar/network.h"
#include "runtime/grammar/token_trie.h"

namespace nibble::grammar {

// A bit a token: bit id % 32 of word id / 32.
using TokenMask = std::vector<std::uint32_t>;
inline bool allows(const TokenMask& mask, std::size_t id) {
  return id / 32 < mask.size() && (mask[id / 32] >> (id % 32) & 1) != 0;
}

class Cursor;

// Shared by all texts of one grammar. Thread-safe through its cursors.
class Automaton {
 public:
  Automaton(std::shared_ptr<const Network> network, std::shared_ptr<const TokenTrie> trie);

 private:
  friend class Cursor;
  using State = std::int32_t;
  static constexpr State kUnknown = -2;
  static constexpr State kDead = -1;
  struct Call {  // to return to `node`, and then to `outer`; -1: none
    std::int32_t node = -1;
    std::int32_t outer = -1;
    bool operator==(const Call&) const = default;
  };
  struct Place {  // kAccept and -1: the text may end here
    std::int32_t node = -1;
    std::int32_t calls = -1;
    auto operator<=>(const Place&) const = default;
  };
  using Places = std::vector<Place>;
  struct Made {
    Places places;  // sorted
    std::unique_ptr<std::array<State, 256>> steps;
    std::shared_ptr<const TokenMask> mask;
    bool accepts() const { return !places.empty() && places.front().node < 0; }
    bool goes_on() const { return places.size() > (accepts() ? 1u : 0u); }
  };
  struct PlacesHash {
    std::size_t operator()(const Places& places) const;
  };

  std::int32_t intern(const Call& call);
  State intern(Places places);
  void add_place(Place place, std::set<Place>& seen, Places& found);
  State start();
  State step(State state, std::uint8_t byte);
  std::shared_ptr<const TokenMask> mask(State state);
  // Forgets all states that no cursor is at, when there are too many.
  void collect();
  std::int32_t kept_calls(const std::vector<Call>& old, std::int32_t calls);

  std::shared_ptr<const Network> network_;
  std::shared_ptr<const TokenTrie> trie_;
  std::mutex mutex_;  // of all below
  std::vector<Call> calls_;
  std::unordered_map<std::uint64_t, std::int32_t> call_ids_;
  std::vector<Made> states_;
  std::unordered_map<Places, State, PlacesHash> state_ids_;
  std::size_t mask_bytes_ = 0;
  std::size_t kept_places_ = 0;
  std::set<Cursor*> cursors_;
};

// A place in one text. Not thread-safe, but different cursors of an automaton are independent.
// Errors: kUsage when the grammar is so ambiguous that more than 4096 readings of a text are open.
class Cursor {
 public:
  explicit Cursor(std::shared_ptr<Automaton> automaton);
  ~Cursor();
  Cursor(const Cursor&) = delete;
  Cursor& operator=(const Cursor&) = delete;

  // Goes on by these bytes; false, and nowhere, when they do not fit.
  bool advance(std::string_view bytes);
  bool accepts() const;  // the text so far fits
  bool goes_on() const;  // some longer one does
  // Tokens that may come next. Worked out now unless the state was met before.
  std::shared_ptr<const TokenMask> mask();
  // The mask if it was worked out before, else null.
  std::shared_ptr<const TokenMask> known_mask() const;

 private:
  friend class Automaton;
  std::shared_ptr<Automaton> automaton_;
  Automaton::State state_ = 0;
};

}  // namespace nibble::grammar
