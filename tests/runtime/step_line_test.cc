// Steps that are issued while the one before runs: the same answers as without.
#include "runtime/step_line.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "runtime/engine_fixture.h"

namespace nibble {
namespace {

using test::EngineTest;
using test::Ids;
using test::Inbox;
using test::kTexts;

using StepLineTest = EngineTest;

// Steps are issued while the one before runs, and no answer shows it: not those that end at a token
// that nobody foresaw, by a text or in the middle, nor those beside them.
TEST_F(StepLineTest, AnswersAreTheSameWhenStepsRunAhead) {
  SamplingOptions drawn;
  drawn.temperature = 0.8f;
  drawn.seed = 5;
  const GenerateResult plain = alone(kTexts[0], 40);
  const GenerateResult random = alone(kTexts[1], 40, drawn);
  const GenerateResult other = alone(kTexts[2], 40);
  for (const std::int64_t blocks : {200, 14}) {
    const auto engine = make_engine(apart_, small(blocks));
    std::vector<Inbox> inboxes(6);
    auto inbox = inboxes.begin();
    EngineRequest asked = request(kTexts[0], 40);
    engine->submit(asked, (inbox++)->sink());
    asked.stop_ids = {plain.ids[9]};
    engine->submit(asked, (inbox++)->sink());
    asked.stop_ids.clear();
    const std::string stop = plain.text.substr(plain.text.size() / 2, 4);
    asked.stop = {stop};
    engine->submit(asked, (inbox++)->sink());
    asked = request(kTexts[1], 40);
    asked.sampling = drawn;
    engine->submit(asked, (inbox++)->sink());
    asked = request(kTexts[2], 400);
    asked.ignore_eos = true;
    const RequestId endless = engine->submit(asked, (inbox++)->sink());
    asked.max_tokens = 1;
    engine->submit(asked, (inbox++)->sink());
    inboxes[4].wait_for_tokens(12);
    engine->cancel(endless);
    for (Inbox& one : inboxes) one.wait();
    EXPECT_EQ(inboxes[0].ids(), plain.ids);
    const auto end = std::ranges::find(plain.ids, plain.ids[9]);
    EXPECT_EQ(inboxes[1].ids(), Ids(plain.ids.begin(), end));
    EXPECT_EQ(inboxes[1].finish_, FinishReason::kStop);
    EXPECT_EQ(inboxes[2].text_, plain.text.substr(0, plain.text.find(stop)));
    EXPECT_EQ(inboxes[3].ids(), random.ids);
    EXPECT_EQ(inboxes[4].finish_, FinishReason::kCancelled);
    EXPECT_EQ(inboxes[5].ids(), Ids{other.ids[0]});
  }
  EXPECT_EQ(reads_.most, 2);
}

// Requests whose tokens the host chooses join those that run ahead, and leave them again.
TEST_F(StepLineTest, StepsWaitWhereTheHostChooses) {
  const GenerateResult first = alone(kTexts[0], 60);
  const GenerateResult second = alone(kTexts[1], 20);
  const GenerateResult third = alone(kTexts[4], 20);
  const auto engine = make_engine(apart_, small(200));
  std::vector<Inbox> inboxes(3);
  engine->submit(request(kTexts[0], 60), inboxes[0].sink());
  inboxes[0].wait_for_tokens(3);
  EngineRequest asked = request(kTexts[1], 20);
  asked.logprobs = 1;
  asked.prompt_logprobs = true;
  engine->submit(asked, inboxes[1].sink());
  asked = request(kTexts[4], 20);
  asked.min_tokens = 4;
  engine->submit(asked, inboxes[2].sink());
  for (Inbox& one : inboxes) one.wait();
  EXPECT_EQ(inboxes[0].ids(), first.ids);
  EXPECT_EQ(inboxes[1].ids(), second.ids);
  EXPECT_EQ(inboxes[1].prompt_.size(), encode(kTexts[1]).size());
  EXPECT_EQ(inboxes[2].ids(), third.ids);
  EXPECT_EQ(reads_.most, 2);

  reads_.most = 0;
  Inbox alone_on_host;
  asked = request(kTexts[1], 20);
  asked.logprobs = 1;
  run(*engine, asked, alone_on_host);
  EXPECT_EQ(alone_on_host.ids(), second.ids);
  EXPECT_EQ(reads_.most, 0);
}

// A place gets free for a request whose tokens the host chooses, in the very step in which another
// answer turns out to have ended.
TEST_F(StepLineTest, AnAnswerThatHasEndedLeavesAStepThatWaits) {
  const GenerateResult first = alone(kTexts[0], 40);
  const GenerateResult third = alone(kTexts[1], 5);
  constexpr std::int64_t kStop = 9;
  EngineOptions options = small(200);
  options.max_num_seqs = 2;
  for (std::int64_t shorter = kStop - 4; shorter < kStop + 4; ++shorter) {
    const auto engine = make_engine(apart_, options);
    std::vector<Inbox> inboxes(3);
    EngineRequest asked = request(kTexts[0], 40);
    asked.stop_ids = {first.ids[kStop]};
    engine->submit(asked, inboxes[0].sink());
    engine->submit(request(kTexts[2], shorter), inboxes[1].sink());
    asked = request(kTexts[1], 5);
    asked.logprobs = 0;
    engine->submit(asked, inboxes[2].sink());
    for (Inbox& one : inboxes) {
      one.wait();
      EXPECT_FALSE(one.error_.has_value()) << one.error_->what();
    }
    EXPECT_EQ(inboxes[0].finish_, FinishReason::kStop);
    EXPECT_EQ(inboxes[2].ids(), third.ids);
  }
}

// A step that cannot be issued, or whose tokens do not come, ends its answers and no more: what the
// step before chose is theirs, and the next request finds all blocks.
TEST_F(StepLineTest, AStepThatFailsEndsItsAnswersAlone) {
  const Ids expected = alone(kTexts[0], 40).ids;
  for (const bool at_start : {true, false}) {
    const auto engine = make_engine(apart_, small(200));
    Inbox broken, next;
    (at_start ? reads_.starts_until_failure : reads_.waits_until_failure) = 6;
    run(*engine, request(kTexts[0], 40), broken);
    ASSERT_TRUE(broken.error_.has_value());
    EXPECT_EQ(broken.error_->kind(), ErrorKind::kDevice);
    EXPECT_EQ(broken.ids(), Ids(expected.begin(), expected.begin() + 5));
    run(*engine, request(kTexts[0], 40), next);
    EXPECT_EQ(next.ids(), expected);
    const auto start = std::chrono::steady_clock::now();
    while (engine->stats().finished < 2 &&
           std::chrono::steady_clock::now() - start < std::chrono::minutes(1)) {
      std::this_thread::yield();
    }
    EXPECT_EQ(engine->stats().kv_cache_usage, 0);
  }
}

TEST_F(StepLineTest, NoStepIsIssuedBehindAKnownEnd) {
  const auto engine = make_engine(apart_, small(200));
  Inbox inbox;
  run(*engine, request(kTexts[0], 1), inbox);
  EXPECT_EQ(inbox.ids(), alone(kTexts[0], 1).ids);
  EXPECT_EQ(reads_.most, 1);
}

}  // namespace
}  // namespace nibble
