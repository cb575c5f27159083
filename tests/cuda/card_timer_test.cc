// What benchmarks ask of a card: the same results however steps are played, and sane times.
#include "backends/card_timer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "backends/card_limits.h"
#include "backends/cuda.h"
#include "cuda/device_array.h"
#include "formats/random_weight.h"
#include "formats/registry.h"

namespace nibble::test {
namespace {

constexpr std::int64_t kRows = 512;
constexpr std::int64_t kCols = 1024;
constexpr std::int64_t kM = 4;

struct Card {
  std::unique_ptr<Backend> backend = make_cuda_backend(0, BackendOptions{});
  std::unique_ptr<CardTimer> timer = open_card_timer(*backend);
  Tensor x =
      backend->memory().upload(random_weight(parse_weight_format("f32"), kM, kCols, 1).planes[0]);
  Tensor y = backend->memory().allocate(DType::kF32, {kM, kRows});

  LinearArgs linear(const LinearWeight& weight, const ModelFormat& format) {
    LinearArgs args;
    args.x = x.data<float>();
    args.x_stride = kCols;
    args.m = kM;
    args.w = &weight;
    args.activations = format.activations.get();
    args.y = y.mutable_data<float>();
    args.y_stride = kRows;
    return args;
  }

  std::vector<std::byte> result() {
    const Tensor host = backend->memory().download(y);
    const auto bytes = host.bytes();
    return {bytes.begin(), bytes.end()};
  }
};

TEST(CardTimer, PlaysGiveTheResultsOfASingleCall) {
  NIBBLE_NEEDS_CUDA();
  Card card;
  ASSERT_NE(card.timer, nullptr);
  for (const char* name : {"bf16", "w4a16_g128", "w8a16", "w4a8_fp8", "w8a8_fp8", "w8a8_int8"}) {
    SCOPED_TRACE(name);
    const ModelFormat format = parse_model_format(name);
    const LinearWeight weight = card.backend->prepare(
        random_weight(format.weights, kRows, kCols, 1), "", format.activations.get());
    const LinearWeight copy = card.timer->copy(weight);
    const LinearArgs args = card.linear(weight, format);
    card.backend->run(args);
    const std::vector<std::byte> once = card.result();
    for (const bool barriers : {false, true}) {
      card.backend->memory().zero(card.y.address(), card.y.byte_size());
      const LinearArgs of_copy = card.linear(copy, format);
      const CardTimer::Times times = card.timer->time(
          *card.backend, [&] { card.backend->run(of_copy); }, 5, barriers);
      EXPECT_GT(times.card, 1e-7);
      EXPECT_LT(times.card, 1e-1);
      EXPECT_GE(times.wall, times.card / 2);
      EXPECT_EQ(card.result(), once) << (barriers ? "with" : "without") << " barriers";
    }
  }
}

TEST(CardTimer, AStepThatEndsOnTheHostIsTimedByItsClock) {
  NIBBLE_NEEDS_CUDA();
  Card card;
  const ModelFormat format = parse_model_format("w=int4_g128_asym,a=int8_tensor");
  const LinearWeight weight = card.backend->prepare(random_weight(format.weights, kRows, kCols, 1));
  const LinearArgs args = card.linear(weight, format);
  const CardTimer::Times times = card.timer->time(
      *card.backend, [&] { card.backend->run(args); }, 3, true);
  EXPECT_EQ(times.card, times.wall);
  EXPECT_GT(times.wall, 0);
}

TEST(CardTimer, LimitsAreThoseOfACard) {
  NIBBLE_NEEDS_CUDA();
  Card card;
  CardLimitsOptions options;
  options.copy_bytes = std::size_t{1} << 28;
  options.side = 4096;
  options.copy_seconds = options.seconds = 0.1;
  const CardLimits limits = measure_card(*card.backend, *card.timer, options);
  EXPECT_GT(limits.copy_bytes_per_second, 1e11);
  EXPECT_LT(limits.copy_bytes_per_second, 2e13);
  if (card.backend->caps().device_blas) {
    EXPECT_GT(limits.bf16_per_second, 1e13);
    EXPECT_GT(limits.f16_per_second, 1e13);
    EXPECT_LT(limits.bf16_per_second, 1e16);
  }
}

}  // namespace
}  // namespace nibble::test
