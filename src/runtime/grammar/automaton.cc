#include "runtime/grammar/automaton.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace nibble::grammar {
namespace {

using Kind = Network::Kind;
constexpr std::size_t kMostPlaces = 4096;
constexpr std::size_t kMostStates = 8192;
constexpr std::size_t kMostKeptPlaces = std::size_t{1} << 20;
constexpr std::size_t kMostCalls = std::size_t{1} << 18;
constexpr std::size_t kMostMaskBytes = std::size_t{16} << 20;

}  // namespace

std::size_t Automaton::PlacesHash::operator()(const Places& places) const {
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a over words
  for (const Place& place : places) {
    for (const std::int32_t part : {place.node, place.calls}) {
      hash = (hash ^ static_cast<std::uint32_t>(part)) * 0x100000001b3ULL;
    }
  }
  return static_cast<std::size_t>(hash ^ hash >> 29);
}

Automaton::Automaton(std::shared_ptr<const Network> network, std::shared_ptr<const TokenTrie> trie)
    : network_(std::move(network)), trie_(std::move(trie)) {}

std::int32_t Automaton::intern(const Call& call) {
  const std::uint64_t key = std::uint64_t{static_cast<std::uint32_t>(call.node)} << 32 |
                            static_cast<std::uint32_t>(call.outer);
  const auto [at, fresh] = call_ids_.try_emplace(key, static_cast<std::int32_t>(calls_.size()));
  if (fresh) calls_.push_back(call);
  return at->second;
}

Automaton::State Automaton::intern(Places places) {
  if (places.empty()) return kDead;
  std::sort(places.begin(), places.end());
  places.erase(std::unique(places.begin(), places.end()), places.end());
  kept_places_ += places.size();
  if (states_.size() > 8 * kMostStates || kept_places_ > 4 * kMostKeptPlaces) {
    fail(ErrorKind::kUsage, "grammar: it leaves too much open here; make it less ambiguous");
  }
  const auto [at, fresh] =
      state_ids_.try_emplace(std::move(places), static_cast<State>(states_.size()));
  if (fresh) states_.emplace_back().places = at->first;
  return at->second;
}

// Follows what needs no byte, down to the bytes that may come next.
void Automaton::add_place(Place place, std::set<Place>& seen, Places& found) {
  std::vector<Place> open = {place};
  while (!open.empty()) {
    const Place one = open.back();
    open.pop_back();
    if (!seen.insert(one).second) continue;
    if (seen.size() > kMostPlaces) {
      fail(ErrorKind::kUsage,
           "grammar: it is too ambiguous here: more than {} readings of the text are open",
           kMostPlaces);
    }
    const Network::Node& node = network_->nodes[static_cast<std::size_t>(one.node)];
    switch (node.kind) {
      case Kind::kBytes:
        found.push_back(one);
        break;
      case Kind::kSplit:
        open.push_back({node.next, one.calls});
        open.push_back({node.other, one.calls});
        break;
      case Kind::kCall: {
        // A call that would return to an end alone leaves no trace, so that lists do not nest.
        const bool last = network_->nodes[static_cast<std::size_t>(node.next)].kind == Kind::kEnd;
        open.push_back({node.other, last ? one.calls : intern(Call{node.next, one.calls})});
        break;
      }
      case Kind::kEnd:
        if (one.calls < 0) {
          found.push_back({-1, -1});
        } else {
          const Call call = calls_[static_cast<std::size_t>(one.calls)];
          open.push_back({call.node, call.outer});
        }
        break;
      case Kind::kFail:
        break;
    }
  }
}

Automaton::State Automaton::start() {
  std::set<Place> seen;
  Places found;
  add_place({network_->start, -1}, seen, found);
  return intern(std::move(found));
}

Automaton::State Automaton::step(State state, std::uint8_t byte) {
  Made& made = states_[static_cast<std::size_t>(state)];
  if (made.steps == nullptr) {
    made.steps = std::make_unique<std::array<State, 256>>();
    made.steps->fill(kUnknown);
  }
  const State known = (*made.steps)[byte];
  if (known != kUnknown) return known;
  std::set<Place> seen;
  Places found;
  const Places places = made.places;  // states_ may move
  for (const Place& place : places) {
    if (place.node < 0) continue;
    const Network::Node& node = network_->nodes[static_cast<std::size_t>(place.node)];
    if (node.low <= byte && byte <= node.high) add_place({node.next, place.calls}, seen, found);
  }
  const State next = intern(std::move(found));
  (*states_[static_cast<std::size_t>(state)].steps)[byte] = next;
  return next;
}

std::shared_ptr<const TokenMask> Automaton::mask(State state) {
  if (const auto& known = states_[static_cast<std::size_t>(state)].mask) return known;
  auto mask = std::make_shared<TokenMask>(static_cast<std::size_t>(trie_->vocab() + 31) / 32);
  std::vector<State> path(static_cast<std::size_t>(trie_->depth()) + 1);
  path[0] = state;
  const auto nodes = trie_->nodes();
  const auto tokens = trie_->tokens();
  for (std::size_t i = 0; i < nodes.size();) {
    const TokenTrie::Node& node = nodes[i];
    const State next = step(path[node.depth - 1u], node.byte);
    if (next == kDead) {
      i = static_cast<std::size_t>(node.after);
      continue;
    }
    path[node.depth] = next;
    for (std::int32_t t = node.first; t < node.last; ++t) {
      const auto id = static_cast<std::size_t>(tokens[static_cast<std::size_t>(t)]);
      (*mask)[id / 32] |= 1u << (id % 32);
    }
    ++i;
  }
  const std::size_t bytes = mask->size() * sizeof(std::uint32_t);
  if (mask_bytes_ + bytes > kMostMaskBytes) {
    for (Made& made : states_) made.mask.reset();
    mask_bytes_ = 0;
  }
  mask_bytes_ += bytes;
  states_[static_cast<std::size_t>(state)].mask = mask;
  return mask;
}

std::int32_t Automaton::kept_calls(const std::vector<Call>& old, std::int32_t calls) {
  std::vector<std::int32_t> chain;  // the innermost first
  for (; calls >= 0; calls = old[static_cast<std::size_t>(calls)].outer) chain.push_back(calls);
  std::int32_t kept = -1;
  for (auto one = chain.rbegin(); one != chain.rend(); ++one) {
    kept = intern(Call{old[static_cast<std::size_t>(*one)].node, kept});
  }
  return kept;
}

void Automaton::collect() {
  const bool few = states_.size() <= kMostStates && calls_.size() <= kMostCalls &&
                   kept_places_ <= kMostKeptPlaces;
  if (few) return;
  const std::vector<Made> states = std::exchange(states_, {});
  const std::vector<Call> calls = std::exchange(calls_, {});
  state_ids_.clear();
  call_ids_.clear();
  mask_bytes_ = 0;
  kept_places_ = 0;
  for (Cursor* const cursor : cursors_) {
    if (cursor->state_ == kDead) continue;
    Places places = states[static_cast<std::size_t>(cursor->state_)].places;
    for (Place& place : places) place.calls = kept_calls(calls, place.calls);
    cursor->state_ = intern(std::move(places));
  }
}

Cursor::Cursor(std::shared_ptr<Automaton> automaton) : automaton_(std::move(automaton)) {
  const std::lock_guard lock(automaton_->mutex_);
  state_ = automaton_->start();
  automaton_->cursors_.insert(this);
}

Cursor::~Cursor() {
  const std::lock_guard lock(automaton_->mutex_);
  automaton_->cursors_.erase(this);
}

bool Cursor::advance(std::string_view bytes) {
  const std::lock_guard lock(automaton_->mutex_);
  automaton_->collect();
  for (const char byte : bytes) {
    if (state_ == Automaton::kDead) break;
    state_ = automaton_->step(state_, static_cast<std::uint8_t>(byte));
  }
  return state_ != Automaton::kDead;
}

bool Cursor::accepts() const {
  const std::lock_guard lock(automaton_->mutex_);
  return state_ != Automaton::kDead &&
         automaton_->states_[static_cast<std::size_t>(state_)].accepts();
}

bool Cursor::goes_on() const {
  const std::lock_guard lock(automaton_->mutex_);
  return state_ != Automaton::kDead &&
         automaton_->states_[static_cast<std::size_t>(state_)].goes_on();
}

std::shared_ptr<const TokenMask> Cursor::mask() {
  const std::lock_guard lock(automaton_->mutex_);
  NIBBLE_CHECK(state_ != Automaton::kDead);
  automaton_->collect();
  return automaton_->mask(state_);
}

std::shared_ptr<const TokenMask> Cursor::known_mask() const {
  const std::lock_guard lock(automaton_->mutex_);
  return state_ == Automaton::kDead ? nullptr
                                    : automaton_->states_[static_cast<std::size_t>(state_)].mask;
}

}  // namespace nibble::grammar
