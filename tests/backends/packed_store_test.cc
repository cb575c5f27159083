// Weights that come out of a store compute what freshly repacked ones do.
#include "backends/packed_store.h"

#include <gmock/gmock.h>

#include <map>
#include <numeric>

#include "backends/backend.h"
#include "formats/registry.h"

namespace nibble {
namespace {

class MapStore final : public PackedStore {
 public:
  Tensor find(const std::string& name, std::size_t bytes) override {
    const auto entry = blobs.find(name);
    if (entry == blobs.end() || entry->second.byte_size() != bytes) return {};
    ++found;
    return Tensor::view(DType::kU8, {static_cast<std::int64_t>(bytes)}, entry->second.bytes(),
                        std::make_shared<Tensor>(entry->second));
  }
  void put(const std::string& name, const Tensor& tensor) override { blobs[name] = tensor; }

  std::map<std::string, Tensor> blobs;
  int found = 0;
};

constexpr std::int64_t kRows = 70;  // three panels, the last one padded
constexpr std::int64_t kCols = 256;

QuantTensor weight_of(const std::string& format) {
  std::vector<float> values(kRows * kCols);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i * 2654435761u % 1001) / 500.0f - 1.0f;
  }
  return parse_weight_format(format)->encode(values.data(), kRows, kCols);
}

std::vector<float> multiply(Backend& backend, const LinearWeight& weight, std::int64_t m) {
  std::vector<float> x(static_cast<std::size_t>(m * kCols));
  std::iota(x.begin(), x.end(), -100.0f);
  std::vector<float> y(static_cast<std::size_t>(m * kRows));
  LinearArgs args;
  args.x = x.data();
  args.x_stride = kCols;
  args.m = m;
  args.w = &weight;
  args.y = y.data();
  args.y_stride = kRows;
  backend.run(args);
  return y;
}

std::unique_ptr<Backend> make_backend(bool exact = false) {
  BackendOptions options;
  options.threads = 2;
  options.exact = exact;
  return make_cpu_backend(options);
}

class PackedStoreTest : public ::testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Backend> backend_ = make_backend();
  std::shared_ptr<MapStore> store_ = std::make_shared<MapStore>();
};

TEST_P(PackedStoreTest, StoredPlanesGiveTheSameBits) {
  const QuantTensor weight = weight_of(GetParam());
  const LinearWeight fresh = backend_->prepare(weight);
  backend_->use_packed_store(store_);
  const LinearWeight kept = backend_->prepare(weight, "layer");
  EXPECT_EQ(store_->found, 0);
  const LinearWeight stored = backend_->prepare(weight, "layer");
  EXPECT_EQ(store_->found, static_cast<int>(store_->blobs.size()));
  EXPECT_EQ(store_->blobs.empty(), fresh.packed == nullptr);
  for (const std::int64_t m : {1, 40}) {
    const std::vector<float> expected = multiply(*backend_, fresh, m);
    EXPECT_EQ(multiply(*backend_, kept, m), expected);
    EXPECT_EQ(multiply(*backend_, stored, m), expected);
  }
}

TEST_P(PackedStoreTest, AnyBytesAreSafe) {
  const QuantTensor weight = weight_of(GetParam());
  backend_->use_packed_store(store_);
  backend_->prepare(weight, "layer");
  for (auto& [name, blob] : store_->blobs) {
    Tensor other = Tensor::allocate(DType::kU8, {static_cast<std::int64_t>(blob.byte_size())});
    std::uint32_t state = 1;
    for (std::int64_t i = 0; i < other.elements(); ++i) {
      state = state * 1664525u + 1013904223u;
      other.mutable_data<std::uint8_t>()[i] = static_cast<std::uint8_t>(state >> 24);
    }
    blob = other;
  }
  const LinearWeight weird = backend_->prepare(weight, "layer");
  for (const std::int64_t m : {1, 40}) {
    EXPECT_EQ(multiply(*backend_, weird, m).size(), static_cast<std::size_t>(m * kRows));
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, PackedStoreTest,
                         ::testing::Values("int4_g128_asym", "int4_g32_sym", "int3_g64_asym",
                                           "int8_g128_asym", "int8_channel", "bf16"),
                         [](const auto& test) { return std::string(test.param); });

TEST(PackedStoreNamesTest, WeightsAndFormatsDoNotMix) {
  const auto backend = make_backend();
  const auto store = std::make_shared<MapStore>();
  backend->use_packed_store(store);
  backend->prepare(weight_of("int4_g64_asym"), "one");
  backend->prepare(weight_of("int4_g64_asym"), "two");
  backend->prepare(weight_of("int4_g64_sym"), "one");
  EXPECT_EQ(store->found, 0);
  const std::size_t named = store->blobs.size();
  backend->prepare(weight_of("int4_g64_asym"));
  EXPECT_EQ(store->blobs.size(), named) << "weights without a name are not kept";
  backend->use_packed_store(nullptr);
  backend->prepare(weight_of("int4_g32"), "three");
  EXPECT_EQ(store->blobs.size(), named);
}

TEST(PackedStoreNamesTest, ExactBackendsKeepNothing) {
  const auto backend = make_backend(true);
  const auto store = std::make_shared<MapStore>();
  backend->use_packed_store(store);
  backend->prepare(weight_of("int4_g64_asym"), "one");
  EXPECT_TRUE(store->blobs.empty());
}

}  // namespace
}  // namespace nibble
