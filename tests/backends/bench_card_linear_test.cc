// The CPU stands in for a card whose clock ticks as the test says.
#include "backends/bench_card_linear.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <set>

#include "support/test_data.h"

namespace nibble {
namespace {

constexpr std::int64_t kTurnover = 1 << 18;
constexpr double kVendorSeconds = 8;    // f16; bf16 takes twice as long
constexpr double kIsolatedSeconds = 2;  // of a call
constexpr double kChainedSeconds = 1.5;

// Runs steps once, and counts what they were asked for.
class ScriptedTimer final : public CardTimer {
 public:
  class Products final : public VendorProducts {
   public:
    Products(ScriptedTimer& timer, double seconds, std::int64_t copies)
        : timer_(timer), seconds_(seconds), copies_(copies) {}
    int algorithms(std::int64_t) override { return 3; }
    void issue(std::int64_t, int algorithm) override {
      if (algorithm == 0) fail(ErrorKind::kDevice, "no such algorithm");
      timer_.vendor_step_ = seconds_ * (algorithm == 2 ? 1 : 4) * static_cast<double>(copies_);
    }
    std::int64_t copies() const override { return copies_; }

   private:
    ScriptedTimer& timer_;
    double seconds_;
    std::int64_t copies_;
  };

  Times time(Backend& backend, const std::function<void()>& step, int plays,
             bool barriers) override {
    EXPECT_GE(plays, 1);
    vendor_step_ = 0;
    backend.run_step(step);
    if (vendor_step_ > 0) {
      order_.push_back("vendor");
      return {vendor_step_, 2 * vendor_step_};
    }
    order_.push_back("op");
    // Behind the first call, which warms up: a fair sample, one far above and one far below.
    const int turn = ++times_[{&backend, barriers}] % 4;
    const double off = turn == 3 ? 100 : turn == 0 ? 0.01 : 1;
    const double calls = static_cast<double>(copies_) + 1;
    return {off * calls * (barriers ? kIsolatedSeconds : kChainedSeconds), 3 * calls};
  }
  LinearWeight copy(const LinearWeight& weight) override {
    ++copies_;
    return weight;
  }
  std::unique_ptr<VendorProducts> vendor_products(Arithmetic type, std::int64_t, std::int64_t rows,
                                                  std::int64_t cols, std::int64_t copies) override {
    EXPECT_GE(2 * rows * cols * copies, kTurnover);
    return std::make_unique<Products>(
        *this, type == Arithmetic::kF16 ? kVendorSeconds : 2 * kVendorSeconds, copies);
  }
  CardState state() override { return {1980, 3201, 650}; }

  std::int64_t copies_ = 0;
  std::vector<std::string> order_;

 private:
  double vendor_step_ = 0;
  std::map<std::pair<const Backend*, bool>, int> times_;
};

std::unique_ptr<Backend> make_one_thread(const std::string& force) {
  BackendOptions options;
  options.threads = 1;
  options.force = force;
  return make_cpu_backend(options);
}

CardLimits limits() {
  CardLimits limits;
  limits.copy_bytes_per_second = 4e12;
  limits.f16_per_second = 7e14;
  limits.bf16_per_second = 8e14;
  limits.fp8_per_second = 1.2e15;
  return limits;
}

TEST(BenchCardLinear, HoldsAgainstTheLimitThatTakesLonger) {
  const BoundShare copied = share_of_bound(limits(), Arithmetic::kBf16, 4e12, 1e14, 2);
  EXPECT_EQ(copied.limit, "copy");
  EXPECT_DOUBLE_EQ(copied.fraction, 0.5);
  const BoundShare multiplied = share_of_bound(limits(), Arithmetic::kBf16Scaled, 4e11, 4e14, 1);
  EXPECT_EQ(multiplied.limit, "bf16");
  EXPECT_DOUBLE_EQ(multiplied.fraction, 0.5);
  EXPECT_EQ(share_of_bound(limits(), Arithmetic::kInt8, 1, 6e14, 1).limit, "fp8");
  EXPECT_DOUBLE_EQ(share_of_bound(limits(), Arithmetic::kInt8, 1, 6e14, 1).fraction, 0.5);
  EXPECT_EQ(share_of_bound(limits(), Arithmetic::kF16, 1, 7e14, 1).limit, "f16");
  EXPECT_EQ(share_of_bound(limits(), Arithmetic::kFloat32, 4e12, 1e20, 1).limit, "copy");
  EXPECT_EQ(share_of_bound(CardLimits{}, Arithmetic::kF16, 1, 1, 1).fraction, 0);
}

TEST(BenchCardLinear, TheFastestAlgorithmThatWorksIsTaken) {
  ScriptedTimer timer;
  const auto backend = make_one_thread("");
  const auto products = timer.vendor_products(Arithmetic::kF16, 1, 1 << 14, 1 << 14, 1);
  const VendorChoice choice = fastest_algorithm(timer, *backend, *products, 1);
  EXPECT_EQ(choice.algorithm, 2);
  EXPECT_DOUBLE_EQ(choice.seconds, kVendorSeconds);
}

TEST(BenchCardLinear, RowsHoldMediansOfACallAndRatiosToTheVendors) {
  ScriptedTimer timer;
  const auto backend = make_one_thread("");
  LinearBench bench;
  bench.shapes = {{256, 256}};
  bench.turnover_bytes = kTurnover;
  bench.ms = {1, 2};
  bench.formats = {"w4a16_g128"};
  bench.seconds = 0;
  const auto rows = bench_card_linear(make_one_thread, *backend, timer, limits(), bench);
  const std::int64_t weight_bytes = 256 * 256 / 2 + 256 * 256 / 128 * 3;
  EXPECT_GE((timer.copies_ + 1) * weight_bytes, kTurnover);

  std::set<std::string> impls;
  std::map<std::string, double> vendor;
  for (const CardBenchRow& row : rows) {
    EXPECT_GE(row.samples, 3);
    EXPECT_EQ(row.state.watts, 650);
    if (row.impl == "cublaslt") {
      vendor[row.format] = row.isolated;
      continue;
    }
    impls.insert(row.impl);
    EXPECT_DOUBLE_EQ(row.isolated, kIsolatedSeconds);
    EXPECT_DOUBLE_EQ(row.chained, kChainedSeconds);
    EXPECT_DOUBLE_EQ(row.wall, 3);
    EXPECT_DOUBLE_EQ(row.over_f16, kVendorSeconds / kIsolatedSeconds);
    EXPECT_DOUBLE_EQ(row.over_bf16, 2 * kVendorSeconds / kIsolatedSeconds);
    const auto m = static_cast<double>(row.m);
    EXPECT_DOUBLE_EQ(row.operations_per_second, 2 * m * 256 * 256 / kIsolatedSeconds);
    EXPECT_DOUBLE_EQ(row.bytes_per_second,
                     (static_cast<double>(weight_bytes) + 4 * m * 512) / kIsolatedSeconds);
  }
  EXPECT_TRUE(impls.contains("reference"));
  EXPECT_GE(impls.size(), 2u);
  EXPECT_THAT(vendor, ::testing::ElementsAre(::testing::Pair("bf16", 2 * kVendorSeconds),
                                             ::testing::Pair("f16", kVendorSeconds)));
}

TEST(BenchCardLinear, SamplesOfOneShapeAreTakenInTurns) {
  ScriptedTimer timer;
  const auto backend = make_one_thread("");
  LinearBench bench;
  bench.shapes = {{64, 64}};
  bench.turnover_bytes = kTurnover;
  bench.ms = {1};
  bench.formats = {"f32"};
  bench.seconds = 0;
  (void)bench_card_linear(make_one_thread, *backend, timer, limits(), bench);
  // At the end: the vendor's two, then the ops', again and again.
  const auto last_vendor = std::find(timer.order_.rbegin(), timer.order_.rend(), "vendor");
  EXPECT_NE(last_vendor, timer.order_.rbegin());
  EXPECT_EQ(std::count(timer.order_.end() - 3, timer.order_.end(), "vendor"), 0);
  std::int64_t turns = 0;
  for (std::size_t i = 1; i < timer.order_.size(); ++i) {
    turns += timer.order_[i] == "vendor" && timer.order_[i - 1] == "op" ? 1 : 0;
  }
  EXPECT_EQ(turns, 3);
}

TEST(BenchCardLinear, FormatsThatLeaveWeightsAloneAreRefused) {
  ScriptedTimer timer;
  const auto backend = make_one_thread("");
  LinearBench bench;
  bench.formats = {"a=int8_token"};
  EXPECT_ERROR(bench_card_linear(make_one_thread, *backend, timer, limits(), bench),
               ErrorKind::kUsage, "leaves the weights alone");
}

TEST(BenchCardLinear, TheDefaultIsTheTableOfTheDocuments) {
  const LinearBench bench = default_card_bench();
  EXPECT_EQ(bench.shapes.size(), 6u);
  EXPECT_EQ(bench.shapes[1].cols, 4096);
  EXPECT_EQ(bench.shapes[1].rows, 14336);
  EXPECT_EQ(bench.ms.size(), 13u);
  EXPECT_EQ(bench.formats.size(), 6u);
}

}  // namespace
}  // namespace nibble
