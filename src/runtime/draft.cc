#include "runtime/draft.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"
#include "model/kv_cache.h"

namespace nibble {
namespace {

class LookupDrafter : public Drafter {
 public:
  explicit LookupDrafter(const SpeculativeOptions& options) : options_(options) {}
  std::vector<std::vector<std::int32_t>> guess(std::span<const DraftRequest> requests) override {
    std::vector<std::vector<std::int32_t>> guesses;
    for (const DraftRequest& request : requests) {
      guesses.push_back(
          look_up(request.tokens, request.most, options_.shortest_ngram, options_.longest_ngram));
    }
    return guesses;
  }
  void forget(std::uint64_t) override {}

 private:
  SpeculativeOptions options_;
};

class ModelDrafter : public Drafter {
 public:
  explicit ModelDrafter(const Session& session)
      : model_(*session.model), kv_type_(session.kv_type) {
    if (!model_.spec().decoder) {
      fail(ErrorKind::kUsage, "speculation: {} is an encoder, it cannot guess text",
           model_.spec().arch);
    }
  }

  std::vector<std::vector<std::int32_t>> guess(std::span<const DraftRequest> requests) override {
    std::vector<std::vector<std::int32_t>> guesses(requests.size());
    std::int64_t most = 0;
    for (const DraftRequest& request : requests) most = std::max(most, request.most);
    for (std::int64_t round = 0; round < most; ++round) extend(requests, round, guesses);
    return guesses;
  }

  void forget(std::uint64_t id) override { texts_.erase(id); }

 private:
  struct Text {
    KvCache cache;
    std::vector<std::int32_t> seen;  // the cache's tokens
  };

  Text& text_of(const DraftRequest& request) {
    constexpr std::int64_t kFirst = 256;
    const auto at = texts_.find(request.id);
    if (at != texts_.end()) return at->second;
    Text fresh{KvCache(model_.spec(), kFirst, kv_type_, model_.backend().memory()), {}};
    return texts_.emplace(request.id, std::move(fresh)).first->second;
  }

  // One more token of every guess that is not complete. In the first round the caches are brought
  // up to the requests' tokens: guesses that were wrong are dropped, what is new is read.
  void extend(std::span<const DraftRequest> requests, std::int64_t round,
              std::vector<std::vector<std::int32_t>>& guesses) {
    Batch batch;
    std::vector<std::size_t> who;
    const std::int64_t limit = model_.spec().max_positions;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const DraftRequest& request = requests[i];
      const bool fits = limit == 0 || std::ssize(request.tokens) + request.most <= limit;
      if (round >= request.most || !fits) continue;
      Text& text = text_of(request);
      std::vector<std::int32_t> wanted(request.tokens.begin(), request.tokens.end());
      wanted.insert(wanted.end(), guesses[i].begin(), guesses[i].end());
      const auto common =
          std::mismatch(wanted.begin(), wanted.end(), text.seen.begin(), text.seen.end()).first -
          wanted.begin();
      // The last token is read again if need be: what follows it is asked for.
      const auto keep = std::min(common, std::ssize(wanted) - 1);
      text.cache.truncate(keep);
      if (std::ssize(wanted) > text.cache.capacity()) text.cache.grow(2 * std::ssize(wanted));
      batch.sequences.push_back({std::ssize(wanted) - keep, keep, &text.cache});
      batch.ids.insert(batch.ids.end(), wanted.begin() + keep, wanted.end());
      text.seen = std::move(wanted);
      who.push_back(i);
    }
    if (who.empty()) return;
    const std::vector<std::int32_t> next = model_.likeliest_tokens(batch);
    for (std::size_t k = 0; k < who.size(); ++k) {
      if (next[k] >= 0) guesses[who[k]].push_back(next[k]);
    }
  }

  const Model& model_;
  KvFormat kv_type_;
  std::map<std::uint64_t, Text> texts_;
};

}  // namespace

std::vector<std::int32_t> look_up(std::span<const std::int32_t> tokens, std::int64_t most,
                                  std::int64_t shortest, std::int64_t longest) {
  constexpr std::int64_t kWindow = 8192;
  const std::int64_t count = std::ssize(tokens);
  std::int64_t best_length = shortest - 1;
  std::int64_t best_end = -1;  // one past the earlier place
  for (std::int64_t end = count - 1; end >= std::max<std::int64_t>(shortest, count - kWindow);
       --end) {
    std::int64_t length = 0;
    while (length < longest && length < end &&
           tokens[static_cast<std::size_t>(end - 1 - length)] ==
               tokens[static_cast<std::size_t>(count - 1 - length)]) {
      ++length;
    }
    if (length <= best_length) continue;
    best_length = length;
    best_end = end;
    if (length == longest) break;
  }
  if (best_end < 0) return {};
  const auto after = tokens.subspan(static_cast<std::size_t>(best_end));
  const auto taken = after.first(std::min(after.size(), static_cast<std::size_t>(most)));
  return {taken.begin(), taken.end()};
}

std::unique_ptr<Drafter> make_lookup_drafter(const SpeculativeOptions& options) {
  return std::make_unique<LookupDrafter>(options);
}

std::unique_ptr<Drafter> make_model_drafter(const Session& session) {
  return std::make_unique<ModelDrafter>(session);
}

void SpeculationGovernor::Arm::add(double more_seconds, double more_tokens) {
  constexpr double kFade = 0.9;
  seconds = seconds * kFade + more_seconds;
  tokens = tokens * kFade + more_tokens;
}

void SpeculationGovernor::record(double seconds, std::int64_t requests, std::int64_t tokens,
                                 std::int64_t guessed, std::int64_t right) {
  if (requests == 0 || most_ == 0) return;
  Arm& arm = guessed > 0 ? with_ : without_;
  arm.add(seconds, static_cast<double>(tokens) / static_cast<double>(requests));
  if (guessed > 0) {
    constexpr double kWeight = 0.1;
    const double share = static_cast<double>(right) / static_cast<double>(guessed);
    right_share_ += kWeight * (share - right_share_);
    // About as many as are expected to be right in a row, and one more.
    const double run = right_share_ < 0.95 ? 1 / (1 - right_share_) : 20;
    length_ = std::clamp(static_cast<std::int64_t>(run) + 1, std::int64_t{1}, most_);
  }
  if (guesses_ && guessed == 0) return;  // there was nothing to guess
  ++steps_;
  decide();
}

// The first steps guess, then some do not, then the faster kind goes on.
void SpeculationGovernor::decide() {
  constexpr std::int64_t kTrial = 8;  // steps
  constexpr std::int64_t kLongestPause = 1024;
  if (guesses_ && !without_.known()) {
    if (steps_ >= kTrial) {
      guesses_ = false;
      steps_ = 0;
    }
    return;
  }
  const bool faster = with_.known() && without_.known() && with_.rate() > without_.rate();
  if (steps_ < kTrial) return;
  if (guesses_ != faster) {  // the kind in use is the slower one
    guesses_ = faster;
    steps_ = 0;
    pause_ = std::min(2 * pause_, kLongestPause);
  } else if (steps_ >= pause_) {  // see whether things have changed
    guesses_ = !guesses_;
    steps_ = 0;
  }
}

}  // namespace nibble
