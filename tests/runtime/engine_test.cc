#include "runtime/engine.h"

#include <gmock/gmock.h>

#include <array>
#include <cmath>
#include <map>
#include <thread>

#include "runtime/engine_fixture.h"

namespace nibble {
namespace {

using test::EngineTest;
using test::Ids;
using test::Inbox;
using test::kTexts;

TEST_F(EngineTest, EveryAnswerIsThatOfTheRequestAlone) {
  std::vector<GenerateResult> expected;  // before: an engine has the model to itself
  for (const char* const text : kTexts) expected.push_back(alone(text, 40));
  struct Case {
    const Session* session;
    std::int64_t blocks;  // plenty, and so few that requests push others out
    std::int64_t kept;    // blocks for those: none, some, enough
  };
  for (const auto& [session, blocks, kept] : {Case{&session_, 200, 0},
                                              {&session_, 14, 0},
                                              {&session_, 14, 3},
                                              {&session_, 14, 100},
                                              {&apart_, 200, 0},
                                              {&apart_, 14, 0},
                                              {&apart_, 14, 3}}) {
    EngineOptions options = small(blocks);
    options.swap_bytes = static_cast<std::size_t>(kept) * block_bytes();
    const auto engine = make_engine(*session, options);
    std::vector<Inbox> inboxes(std::size(kTexts));
    for (std::size_t i = 0; i < inboxes.size(); ++i) {
      engine->submit(request(kTexts[i], 40), inboxes[i].sink());
    }
    for (std::size_t i = 0; i < inboxes.size(); ++i) {
      inboxes[i].wait();
      EXPECT_EQ(inboxes[i].ids(), expected[i].ids) << kTexts[i] << ", blocks " << blocks;
      EXPECT_EQ(inboxes[i].text_, expected[i].text);
      EXPECT_EQ(inboxes[i].finish_, expected[i].finish_reason);
    }
    const EngineStats stats = engine->stats();
    if (blocks < 100) {
      EXPECT_GT(stats.preemptions, 0);
    } else {
      EXPECT_EQ(stats.preemptions, 0);
    }
    EXPECT_EQ(stats.swapped_tokens > 0, kept > 0);
    EXPECT_EQ(stats.swap_usage, 0);
  }
}

TEST_F(EngineTest, SamplesAsAlone) {
  SamplingOptions sampling;
  sampling.temperature = 0.8f;
  sampling.top_k = 20;
  sampling.seed = 5;
  const auto engine = make_engine(session_, {});
  Inbox inbox;
  EngineRequest asked = request(kTexts[0], 20);
  asked.sampling = sampling;
  run(*engine, asked, inbox);
  EXPECT_EQ(inbox.ids(), alone(kTexts[0], 20, sampling).ids);
}

// Greedy and sampled answers are the same with guesses and without, right ones (of the model
// itself) and wrong ones (of words that came before).
TEST_F(EngineTest, GuessesChangeNoAnswer) {
  const char* const repeating =
      "one two three four five six, one two three four five six, one two three four";
  SamplingOptions drawn;
  drawn.temperature = 0.7f;
  drawn.repetition_penalty = 1.2f;
  drawn.seed = 9;
  for (const SamplingOptions& sampling : {SamplingOptions{}, drawn}) {
    const GenerateResult expected = alone(repeating, 30, sampling);
    const GenerateResult other = alone(kTexts[1], 30, sampling);
    for (const Session* const draft :
         {static_cast<const Session*>(nullptr), &std::as_const(session_)}) {
      for (const std::int64_t blocks : {200, 14}) {
        EngineOptions options = small(blocks);
        options.speculative = {.tokens = 4, .longest_ngram = 3, .shortest_ngram = 1};
        options.draft = draft;
        const auto engine = make_engine(session_, options);
        Inbox first, second, third;
        EngineRequest asked = request(repeating, 30);
        asked.sampling = sampling;
        engine->submit(asked, first.sink());
        const std::string stop = expected.text.substr(expected.text.size() / 2, 4);
        asked.stop = {stop};
        engine->submit(asked, second.sink());
        asked = request(kTexts[1], 30);
        asked.sampling = sampling;
        asked.logprobs = 1;
        engine->submit(asked, third.sink());
        for (Inbox* inbox : {&first, &second, &third}) inbox->wait();
        EXPECT_EQ(first.ids(), expected.ids) << (first.error_ ? first.error_->what() : "");
        EXPECT_EQ(first.text_, expected.text);
        EXPECT_EQ(second.text_, expected.text.substr(0, expected.text.find(stop)));
        EXPECT_EQ(third.ids(), other.ids);
        const EngineStats stats = engine->stats();
        EXPECT_GT(stats.guessed_tokens, 0);
        if (draft != nullptr && sampling.temperature == 0) {
          EXPECT_GT(stats.right_guesses, stats.guessed_tokens / 2) << "it guesses its own words";
        }
      }
    }
  }
}

// Frequencies of the third token of many answers, guessed and not, against each other: a guess may
// not make what it names more likely. Chi-squared over the tokens that occur often.
TEST_F(EngineTest, GuessesDoNotShiftWhatIsDrawn) {
  std::map<std::int32_t, std::array<int, 2>> counts;
  constexpr int kAnswers = 300;
  for (const int guessed : {0, 1}) {
    EngineOptions options;
    options.speculative.tokens = guessed * 3;
    options.draft = guessed == 1 ? &session_ : nullptr;
    const auto engine = make_engine(session_, options);
    std::vector<Inbox> inboxes(kAnswers);
    for (int i = 0; i < kAnswers; ++i) {
      EngineRequest asked = request("It was", 5);
      asked.sampling.temperature = 1;
      asked.sampling.top_k = 3;
      asked.sampling.seed = static_cast<std::uint64_t>(i + 1000 * guessed);
      asked.ignore_eos = true;
      engine->submit(asked, inboxes[static_cast<std::size_t>(i)].sink());
    }
    for (Inbox& inbox : inboxes) {
      inbox.wait();
      ++counts[inbox.ids().at(2)][static_cast<std::size_t>(guessed)];
    }
    EXPECT_EQ(engine->stats().guessed_tokens > 0, guessed == 1);
  }
  double chi = 0;
  int kinds = 0;
  for (const auto& [id, count] : counts) {
    const double both = count[0] + count[1];
    if (both < 10) continue;
    ++kinds;
    chi += (count[0] - count[1]) * (count[0] - count[1]) / both;
  }
  // Mean kinds, variance 2 kinds: four standard deviations.
  EXPECT_LT(chi, kinds + 4 * std::sqrt(2.0 * kinds)) << kinds << " kinds";
  EXPECT_GT(kinds, 3);
}

TEST(Drafts, LookUpFindsTheLongestAndLastPlace) {
  const Ids text = {1, 2, 3, 4, 9, 2, 3, 5, 7, 2, 3};
  EXPECT_EQ(look_up(text, 2, 1, 4), (Ids{5, 7}));  // the last place of "2 3"
  const Ids longer = {8, 2, 3, 4, 9, 2, 3, 5, 8, 2, 3};
  EXPECT_EQ(look_up(longer, 3, 1, 4), (Ids{4, 9, 2}));  // "8 2 3" is longer than "2 3"
  EXPECT_EQ(look_up(longer, 3, 1, 2), (Ids{5, 8, 2}));
  EXPECT_EQ(look_up(text, 3, 3, 4), Ids{});
  EXPECT_EQ(look_up(Ids{5}, 3, 1, 4), Ids{});
  EXPECT_EQ(look_up(Ids{5, 5}, 3, 1, 4), Ids{5});
}

// Plays steps of a device: a guessed token costs `cost` of a step, and is right so often.
std::int64_t guessing_steps(double cost, double share, int steps) {
  SpeculationGovernor governor(5);
  std::int64_t guessing = 0;
  double due = 0;  // right tokens, in parts
  for (int i = 0; i < steps; ++i) {
    const std::int64_t guessed = governor.tokens();
    std::int64_t right = 0;
    double chance = 1;
    for (std::int64_t k = 0; k < guessed; ++k) due += chance *= share;
    right = std::min(guessed, static_cast<std::int64_t>(due));
    due -= static_cast<double>(right);
    governor.record(1 + cost * static_cast<double>(guessed), 2, 2 * (1 + right), 2 * guessed,
                    2 * right);
    guessing += guessed > 0 ? 1 : 0;
  }
  return guessing;
}

TEST(Drafts, TheGovernorGuessesWhereItPays) {
  EXPECT_GT(guessing_steps(0.05, 0.8, 2000), 1800);
  EXPECT_LT(guessing_steps(0.6, 0.3, 2000), 200);
  EXPECT_LT(guessing_steps(0.05, 0.0, 2000), 200);
}

TEST_F(EngineTest, SharedBeginningsAreComputedOnce) {
  const auto engine = make_engine(session_, small(100));
  Inbox first, second;
  run(*engine, request(kTexts[3]), first);
  run(*engine, request(kTexts[3]), second);
  EXPECT_EQ(first.cached_, 0);
  const std::int64_t prompt = std::ssize(encode(kTexts[3]));
  EXPECT_EQ(second.cached_, (prompt - 1) / 16 * 16);
  EXPECT_EQ(second.ids(), first.ids());
  EXPECT_EQ(engine->stats().prefix_cache_hits, second.cached_);

  EngineOptions options = small(100);
  options.enable_prefix_caching = false;
  const auto without = make_engine(session_, options);
  Inbox third, fourth;
  run(*without, request(kTexts[3]), third);
  run(*without, request(kTexts[3]), fourth);
  EXPECT_EQ(fourth.cached_, 0);
}

TEST_F(EngineTest, StopsWhereItIsTold) {
  const auto engine = make_engine(session_, {});
  Inbox whole;
  run(*engine, request(kTexts[1], 20), whole);
  EXPECT_EQ(whole.finish_, FinishReason::kLength);
  const std::string word = whole.text_.substr(whole.text_.size() / 2, 6);

  Inbox at_text;
  EngineRequest asked = request(kTexts[1], 20);
  asked.stop = {word};
  run(*engine, asked, at_text);
  EXPECT_EQ(at_text.text_, whole.text_.substr(0, whole.text_.find(word)));
  EXPECT_EQ(at_text.finish_, FinishReason::kStop);

  Inbox at_id;
  asked = request(kTexts[1], 20);
  asked.stop_ids = {whole.ids()[7]};
  run(*engine, asked, at_id);
  EXPECT_EQ(at_id.finish_, FinishReason::kStop);
  EXPECT_LE(at_id.tokens_.size(), 7u);

  Inbox later;
  asked.min_tokens = 12;
  run(*engine, asked, later);
  Ids before = later.ids();
  ASSERT_GE(before.size(), 12u);
  before.resize(12);
  EXPECT_THAT(before, testing::Not(testing::Contains(asked.stop_ids[0])));
}

TEST_F(EngineTest, LogprobsAreThoseOfTheModel) {
  const auto engine = make_engine(session_, small(100));
  Inbox inbox;
  EngineRequest asked = request(kTexts[3], 3);
  asked.logprobs = 2;
  asked.prompt_logprobs = true;
  run(*engine, asked, inbox);
  ASSERT_EQ(inbox.tokens_.size(), 3u);
  ASSERT_EQ(inbox.prompt_.size(), asked.prompt.size());

  Ids all = asked.prompt;
  for (const std::int32_t id : inbox.ids()) all.push_back(id);
  KvCache cache(session_.model->spec(), std::ssize(all), session_.kv_type);
  const Tensor logits = session_.model->logits(Batch::single(all, &cache));
  const auto vocab = static_cast<std::size_t>(session_.model->spec().vocab);
  for (std::size_t i = 1; i < all.size(); ++i) {
    const std::span<const float> row(logits.data<float>() + (i - 1) * vocab, vocab);
    const EngineToken& token =
        i < asked.prompt.size() ? inbox.prompt_[i] : inbox.tokens_[i - asked.prompt.size()];
    double sum = 0;
    for (const float v : row) sum += std::exp(static_cast<double>(v));
    EXPECT_EQ(token.chosen.id, all[i]);
    EXPECT_NEAR(token.chosen.logprob, row[static_cast<std::size_t>(all[i])] - std::log(sum), 1e-4);
    ASSERT_EQ(token.likeliest.size(), 2u);
    EXPECT_EQ(token.likeliest[0].id, argmax(row));
    EXPECT_GE(token.likeliest[0].logprob, token.likeliest[1].logprob);
  }
}

// What --deterministic sets: the same bits whatever else runs, preempted and cut up or not.
TEST_F(EngineTest, OneKernelForAnyNumberOfRowsGivesTheSameBits) {
  BackendOptions kernel;
  kernel.exact = true;
  for (const ImplRow& row : backend_->impl_rows()) {
    const bool fits = row.op == "linear" && row.usable && row.name.ends_with("_blocked");
    if (fits && kernel.force.empty()) kernel.force = "linear:" + row.name + ",attention:reference";
  }
  const auto backend = make_cpu_backend(kernel);
  const Session session = open_session(test::tiny_novel(), *backend);
  const auto asked = [](std::size_t text) {
    EngineRequest one = request(kTexts[text], 30);
    one.logprobs = 0;
    return one;
  };
  std::vector<Inbox> calm(std::size(kTexts));
  {
    const auto engine = make_engine(session, {});
    for (std::size_t i = 0; i < calm.size(); ++i) run(*engine, asked(i), calm[i]);
  }
  const auto engine = make_engine(session, small(14));
  std::vector<Inbox> busy(std::size(kTexts));
  for (std::size_t i = 0; i < busy.size(); ++i) engine->submit(asked(i), busy[i].sink());
  for (std::size_t i = 0; i < busy.size(); ++i) {
    busy[i].wait();
    ASSERT_EQ(busy[i].ids(), calm[i].ids());
    for (std::size_t k = 0; k < busy[i].tokens_.size(); ++k) {
      EXPECT_EQ(busy[i].tokens_[k].chosen.logprob, calm[i].tokens_[k].chosen.logprob);
    }
  }
  EXPECT_GT(engine->stats().preemptions, 0);
}

TEST_F(EngineTest, CancelEndsARequestAndNoOther) {
  const auto engine = make_engine(session_, {});
  Inbox one, two;
  EngineRequest endless = request(kTexts[0], 400);
  endless.ignore_eos = true;
  const RequestId id = engine->submit(endless, one.sink());
  engine->submit(request(kTexts[1], 30), two.sink());
  one.wait_for_tokens(3);
  engine->cancel(id);
  one.wait();
  two.wait();
  EXPECT_EQ(one.finish_, FinishReason::kCancelled);
  EXPECT_LT(one.tokens_.size(), 400u);
  EXPECT_EQ(two.ids(), alone(kTexts[1], 30).ids);
  engine->cancel(id);  // once more: nothing
}

// A client that takes its first piece only when five more tokens have been made gets all the same.
TEST_F(EngineTest, StepsGoOnWhileAnswersAreHandedOver) {
  const auto engine = make_engine(session_, {});
  Inbox inbox;
  bool first = true;
  const UpdateSink rest = inbox.sink();
  engine->submit(request("The sea was", 12), [&](EngineUpdate update) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (first && engine->stats().generation_tokens < 6) {
      if (std::chrono::steady_clock::now() > deadline) {
        ADD_FAILURE() << "no step runs while an answer is handed over";
        break;
      }
      std::this_thread::yield();
    }
    first = false;
    rest(std::move(update));
  });
  inbox.wait();
  const GenerateResult expected = alone("The sea was", 12);
  EXPECT_EQ(inbox.ids(), expected.ids);
  EXPECT_EQ(inbox.text_, expected.text);
}

TEST_F(EngineTest, RequestsThatAreLeftGetTheirLastUpdate) {
  Inbox inbox;
  auto engine = make_engine(session_, {});
  EngineRequest endless = request(kTexts[0], 400);
  endless.ignore_eos = true;
  engine->submit(endless, inbox.sink());
  engine.reset();
  EXPECT_EQ(inbox.finish_, FinishReason::kCancelled);
}

TEST_F(EngineTest, ManyThreadsSubmitAtOnce) {
  EngineOptions options = small(40);
  options.max_num_seqs = 7;
  const auto engine = make_engine(session_, options);
  std::vector<Inbox> inboxes(48);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = t; i < inboxes.size(); i += 4) {
        engine->submit(request(kTexts[i % std::size(kTexts)], 4), inboxes[i].sink());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (Inbox& inbox : inboxes) inbox.wait();
  const auto start = std::chrono::steady_clock::now();
  while (engine->stats().finished < 48 &&
         std::chrono::steady_clock::now() - start < std::chrono::minutes(1)) {
    std::this_thread::yield();
  }
  EXPECT_EQ(engine->stats().finished, 48);
  EXPECT_EQ(engine->stats().kv_cache_usage, 0);
}

TEST_F(EngineTest, RefusesWhatCanNeverRun) {
  EngineOptions options = small(4);  // 64 tokens
  const auto engine = make_engine(session_, options);
  EXPECT_EQ(engine->max_model_len(), 64);
  Inbox inbox;
  const auto refused = [&](const EngineRequest& asked) {
    try {
      engine->submit(asked, inbox.sink());
    } catch (const Error& error) {
      return error.kind() == ErrorKind::kUsage;
    }
    return false;
  };
  EngineRequest asked = request("x");
  asked.prompt.assign(64, 5);
  EXPECT_TRUE(refused(asked));
  asked.prompt.clear();
  EXPECT_TRUE(refused(asked));
  asked.prompt = {-1};
  EXPECT_TRUE(refused(asked));
  asked.prompt = {5};
  asked.max_tokens = 0;
  EXPECT_TRUE(refused(asked));
  asked.max_tokens = 1;
  asked.sampling.top_p = 2;
  EXPECT_TRUE(refused(asked));
  asked.sampling.top_p = 1;
  asked.stop = {""};
  EXPECT_TRUE(refused(asked));

  options.max_model_len = 100;
  EXPECT_THROW((void)make_engine(session_, options), Error);
  options.max_model_len = 0;
  options.kv_cache_bytes = 1;
  EXPECT_THROW((void)make_engine(session_, options), Error);
}

}  // namespace
}  // namespace nibble
