// Chains of ops (ops/chain.h) with every implementation of linear: the same bits as the ops one by
// one, wherever those round the same float32 numbers.
#include <cmath>
#include <map>

#include "contract/op_support.h"
#include "formats/registry.h"

namespace nibble::test {
namespace {

constexpr std::int64_t kHidden = 640;
constexpr std::int64_t kInner = 768;

struct Formats {
  const char* weight;
  const char* activations;  // or null
};
constexpr Formats kFormats[] = {{"int4_g128_asym_sbf16", nullptr},
                                {"int4_g64_sym", nullptr},
                                {"int4_g128_asym", "fp8_e4m3_token"},
                                {"int8_channel_sym", nullptr},
                                {"int8_channel_sym", "int8_token"},
                                {"fp8_e4m3_channel", "fp8_e4m3_token"},
                                {"bf16", nullptr},
                                {"f16", nullptr},
                                {"nf4", nullptr}};

// How the rows of a norm lie.
enum class Layout { kPlain, kInPlace, kStrided };

struct Shape {
  std::int64_t m;
  Layout layout;
};
constexpr Shape kShapes[] = {{1, Layout::kPlain},
                             {20, Layout::kPlain},
                             {20, Layout::kInPlace},
                             {20, Layout::kStrided},
                             {70, Layout::kPlain}};

// The weights of one format as a backend takes them.
struct Weights {
  Weights(Backend& backend, const Formats& formats)
      : activations(formats.activations == nullptr ? nullptr
                                                   : parse_activation_format(formats.activations)),
        gate(prepared(backend, formats.weight, kInner, kHidden, 1)),
        up(prepared(backend, formats.weight, kInner, kHidden, 2)),
        down(prepared(backend, formats.weight, kHidden, kInner, 3)) {}

  LinearWeight prepared(Backend& backend, const std::string& name, std::int64_t rows,
                        std::int64_t cols, unsigned seed) const {
    static std::map<std::pair<std::string, unsigned>, QuantTensor> encoded;
    QuantTensor& weight = encoded[{name, seed}];
    if (weight.planes.empty()) {
      const std::vector<float> w = random_floats(rows * cols, seed, 0.1f);
      weight = parse_weight_format(name)->encode(w.data(), rows, cols);
    }
    return backend.prepare(weight, "", activations.get());
  }

  ActivationFormatPtr activations;
  LinearWeight gate, up, down;
};

// A block's two halves that a chain can say, on rows of their own.
class Chained {
 public:
  Chained(const Weights& weights, const Shape& shape)
      : weights_(weights),
        m_(shape.m),
        layout_(shape.layout),
        stride_(kHidden + (layout_ == Layout::kStrided ? 4 : 0)),
        x_(random_floats(m_ * kHidden, 4, 3.0f)),
        normed_(m_, kHidden, stride_),
        wide_(2 * m_, kInner, kInner),
        activated_(m_, kInner, kInner),
        out_(m_, kHidden, kHidden) {
    for (std::int64_t i = 0; i < m_ * kHidden; ++i) out_.data()[i] = 0.5f;
    if (layout_ == Layout::kInPlace) std::ranges::copy(x_, normed_.data());
  }

  NormArgs norm(NormKind kind) {
    NormArgs args;
    args.kind = kind;
    args.x = layout_ == Layout::kInPlace ? normed_.data() : x_.data();
    args.x_stride = kHidden;
    args.rows = m_;
    args.cols = kHidden;
    args.weight = scale_.data();
    args.bias = kind == NormKind::kLayer ? shift_.data() : nullptr;
    args.eps = 1e-5f;
    args.y = normed_.data();
    args.y_stride = stride_;
    return args;
  }

  // y of gate and up side by side.
  LinearArgs call(const LinearWeight& w, const float* x, std::int64_t x_stride, float* y) const {
    LinearArgs args;
    args.x = x;
    args.x_stride = x_stride;
    args.m = m_;
    args.w = &w;
    args.y = y;
    args.y_stride = w.canonical.rows;
    args.activations = weights_.activations.get();
    return args;
  }
  LinearArgs gate() { return call(weights_.gate, normed_.data(), stride_, wide_.data()); }
  LinearArgs up() {
    LinearArgs args = call(weights_.up, normed_.data(), stride_, wide_.data() + m_ * kInner);
    args.bias = bias_.data();
    return args;
  }
  LinearArgs down() {
    LinearArgs args = call(weights_.down, activated_.data(), kInner, out_.data());
    args.accumulate = true;
    return args;
  }
  ActivationArgs activation(Activation kind, bool gated) {
    ActivationArgs args;
    args.kind = kind;
    args.x = wide_.data();
    args.x_stride = args.multiplier_stride = args.y_stride = kInner;
    args.multiplier = gated ? wide_.data() + m_ * kInner : nullptr;
    args.rows = m_;
    args.cols = kInner;
    args.y = activated_.data();
    return args;
  }

  std::vector<float> wide() const { return values(wide_, 2 * m_, kInner); }
  std::vector<float> out() const { return values(out_, m_, kHidden); }
  std::string damage() const {
    return normed_.damage() + wide_.damage() + activated_.damage() + out_.damage();
  }

 private:
  static std::vector<float> values(const GuardedOutput& from, std::int64_t rows,
                                   std::int64_t cols) {
    std::vector<float> all;
    for (std::int64_t i = 0; i < rows * cols; ++i) all.push_back(from.at(i / cols, i % cols));
    return all;
  }

  const Weights& weights_;
  std::int64_t m_;
  Layout layout_;
  std::int64_t stride_;
  std::vector<float> x_;
  std::vector<float> scale_ = random_floats(kHidden, 5);
  std::vector<float> shift_ = random_floats(kHidden, 6);
  std::vector<float> bias_ = random_floats(kInner, 7);
  GuardedOutput normed_, wide_, activated_, out_;
};

// False where the implementation does not take the weights.
bool supported(Backend& backend, Chained& rows) {
  return try_run(backend, rows.norm(NormKind::kRms)) && try_run(backend, rows.gate()) &&
         try_run(backend, rows.down());
}

class ChainContract : public ::testing::TestWithParam<std::string> {
 protected:
  // `check` gets the rows of two runs, for every format, number of rows and layout that there is.
  template <class Check>
  void for_each_case(const Check& check) {
    const auto backend = forced_backend("linear", GetParam());
    // What is slow runs on a host, where a chain is its ops one after the other.
    const bool slow = GetParam() == "reference" || GetParam().starts_with("generic");
    for (const Formats& formats : kFormats) {
      const Weights weights(*backend, formats);
      for (const Shape& shape : kShapes) {
        if (slow && shape.m > 1) continue;
        Chained trial(weights, shape);
        if (!supported(*backend, trial)) continue;
        SCOPED_TRACE(testing::Message()
                     << formats.weight << ' '
                     << (formats.activations == nullptr ? "" : formats.activations) << ", m "
                     << shape.m << ", layout " << static_cast<int>(shape.layout));
        Chained chained(weights, shape);
        Chained single(weights, shape);
        check(*backend, chained, single);
        EXPECT_EQ("", chained.damage());
      }
    }
  }
};

TEST_P(ChainContract, NormAndLinearsAreAsOpByOp) {
  for_each_case([](Backend& backend, Chained& chained, Chained& single) {
    for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
      const LinearArgs calls[] = {chained.gate(), chained.up()};
      const ChainLink links[] = {chained.norm(kind), std::span<const LinearArgs>(calls)};
      backend.run_chain(links);
      backend.run(single.norm(kind));
      backend.run(single.gate());
      backend.run(single.up());
      EXPECT_EQ(single.wide(), chained.wide());
    }
  });
}

TEST_P(ChainContract, NetworkWithoutGateIsAsOpByOp) {
  for_each_case([](Backend& backend, Chained& chained, Chained& single) {
    const LinearArgs gate = chained.gate();
    const LinearArgs down = chained.down();
    const ChainLink links[] = {chained.norm(NormKind::kLayer), std::span(&gate, 1),
                               chained.activation(Activation::kGelu, false), std::span(&down, 1)};
    backend.run_chain(links);
    backend.run(single.norm(NormKind::kLayer));
    backend.run(single.gate());
    backend.run(single.activation(Activation::kGelu, false));
    backend.run(single.down());
    EXPECT_EQ(single.out(), chained.out());
  });
}

// An implementation may take gate, up and activation at once, so they stay together.
TEST_P(ChainContract, GatedNetworkIsAsInPieces) {
  for_each_case([](Backend& backend, Chained& chained, Chained& single) {
    for (const Activation kind : {Activation::kSilu, Activation::kGeluTanh}) {
      const auto run = [&](Chained& rows, bool at_once) {
        const LinearArgs calls[] = {rows.gate(), rows.up()};
        const LinearArgs down = rows.down();
        const ChainLink links[] = {rows.norm(NormKind::kRms), std::span<const LinearArgs>(calls),
                                   rows.activation(kind, true), std::span(&down, 1)};
        const std::span<const ChainLink> all(links);
        if (at_once) return backend.run_chain(all);
        backend.run(rows.norm(NormKind::kRms));
        backend.run_chain(all.subspan(1, 2));
        backend.run(down);
      };
      run(chained, true);
      run(single, false);
      EXPECT_EQ(single.out(), chained.out());
    }
  });
}

// Values that are not finite stay within their rows.
TEST_P(ChainContract, PassesOnWhatIsNotFinite) {
  for_each_case([](Backend& backend, Chained& chained, Chained&) {
    NormArgs norm = chained.norm(NormKind::kRms);
    if (norm.x == norm.y || norm.rows < 3) return;
    std::vector<float> x(norm.x, norm.x + norm.rows * norm.cols);
    x[static_cast<std::size_t>(kHidden + 77)] = NAN;
    norm.x = x.data();
    const LinearArgs calls[] = {chained.gate(), chained.up()};
    const ChainLink links[] = {norm, std::span<const LinearArgs>(calls)};
    backend.run_chain(links);
    const std::vector<float> y = chained.wide();
    for (std::size_t i = 0; i < static_cast<std::size_t>(3 * kInner); ++i) {
      ASSERT_EQ(std::isnan(y[i]), i / kInner == 1) << i;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Impls, ChainContract, ::testing::ValuesIn(usable_impls("linear")),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace nibble::test
