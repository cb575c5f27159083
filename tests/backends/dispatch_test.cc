#include "backends/dispatch.h"

#include <mutex>

#include "support/test_data.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;

// A fake op of three implementations: the first refuses odd counts, the second refuses everything.
std::string g_ran;

Support even_only(const AddArgs& args, const DeviceCaps&) {
  return args.count % 2 == 0 ? Support::yes() : Support::no("count is odd");
}
Support never(const AddArgs&, const DeviceCaps&) { return Support::no("is never ready"); }
Support always(const AddArgs&, const DeviceCaps&) { return Support::yes(); }
void run_first(const AddArgs&, ExecContext&) { g_ran = "first"; }
void run_second(const AddArgs&, ExecContext&) { g_ran = "second"; }
void run_last(const AddArgs&, ExecContext&) { g_ran = "last"; }

constexpr Impl<AddArgs> kImpls[] = {
    {"first", even_only, run_first}, {"second", never, run_second}, {"last", always, run_last}};

class Dispatch : public ::testing::Test {
 protected:
  std::string run(std::int64_t count, const LogSink& sink = {}) {
    AddArgs args;
    args.count = count;
    g_ran.clear();
    dispatcher_.run(args, context_, sink);
    return g_ran;
  }

  ThreadPool pool_{1};
  DeviceCaps caps_;
  ExecContext context_{pool_, caps_};
  OpDispatcher<AddArgs> dispatcher_{"add", kImpls};
};

TEST_F(Dispatch, TakesTheFirstThatSupportsTheArguments) {
  EXPECT_EQ(run(2), "first");
  EXPECT_EQ(run(3), "last");
}

TEST_F(Dispatch, LogsEachOutcomeOnceWithTheReasons) {
  std::vector<std::string> lines;
  const LogSink sink = [&](LogLevel, const std::string& line) { lines.push_back(line); };
  run(3, sink);
  run(5, sink);
  run(2, sink);
  EXPECT_THAT(lines,
              ElementsAre("dispatch: add -> last (not first: count is odd; not second: is never "
                          "ready)",
                          "dispatch: add -> first"));
}

TEST_F(Dispatch, AForcedImplementationRunsOrFailsWithItsReason) {
  dispatcher_.force("last");
  EXPECT_EQ(run(2), "last");
  dispatcher_.force("second");
  EXPECT_ERROR(run(2), ErrorKind::kUnsupported,
               "add: no implementation can run this (not second: is never ready)");
}

TEST_F(Dispatch, ForcingAnUnknownNameListsTheKnownOnes) {
  EXPECT_ERROR(dispatcher_.force("amx"), ErrorKind::kUsage,
               "add has no implementation 'amx'; there are first, second, last");
}

TEST(ParseForce, ReadsAListAndRefusesOtherForms) {
  const auto entries = parse_force("linear:reference,attention:avx2");
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[1].op, "attention");
  EXPECT_EQ(entries[1].impl, "avx2");
  EXPECT_TRUE(parse_force("").empty());
  for (const char* bad : {"linear", "linear:", ":avx2", ",linear:avx2", "linear:avx2,,add:avx2"}) {
    EXPECT_ERROR(parse_force(bad), ErrorKind::kUsage, "is not op:implementation");
  }
  EXPECT_ERROR(parse_force("add:a,add:b"), ErrorKind::kUsage, "add occurs twice");
}

}  // namespace
}  // namespace nibble
