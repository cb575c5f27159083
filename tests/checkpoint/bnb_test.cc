// bitsandbytes: what the library stores, and what we write.
#include <algorithm>

#include "checkpoint/bnb_state.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/encoding.h"
#include "checkpoint/writer.h"
#include "support/golden_checkpoint.h"
#include "support/test_data.h"

namespace nibble {
namespace {

std::filesystem::path golden() { return test::golden_checkpoint("bnb"); }

bool same_numbers(const Tensor& a, const Tensor& b) {
  std::vector<float> x(static_cast<std::size_t>(a.elements())), y(x.size());
  to_float(a, x.data());
  to_float(b, y.data());
  return x == y;
}

TEST(Bnb, DecodesToTheValuesOfTheLibrary) {
  for (const test::GoldenWeight& weight : test::golden_weights("bnb")) {
    SCOPED_TRACE(weight.module);
    // The library divides by 127 in another order for 8 bits, and rounds the result to 16.
    const float tolerance = weight.module == "int8" ? 0x1p-11f : 0.0f;
    for (std::size_t i = 0; i < weight.ours.size(); ++i) {
      ASSERT_NEAR(weight.ours[i], weight.theirs[i], std::abs(weight.theirs[i]) * tolerance) << i;
    }
  }
}

TEST(Bnb, KeepsFormats) {
  const auto checkpoint = open_checkpoint(golden());
  EXPECT_EQ(checkpoint->convention(), "bnb");
  EXPECT_EQ(checkpoint->linear("nf4.64.plain").format->name(), "nf4_g64");
  EXPECT_EQ(checkpoint->linear("nf4.128.nested").format->name(), "nf4_g128_sdq8");
  EXPECT_EQ(checkpoint->linear("fp4.64.plain").format->name(), "bnb4_g64");
  EXPECT_EQ(checkpoint->linear("int8").format->name(), "int8_channel_sym_sf32");
  EXPECT_EQ(checkpoint->linear("odd").format->name(), "f32");
}

TEST(Bnb, EncodesToTheBytesOfTheLibrary) {
  const auto checkpoint = open_checkpoint(golden());
  for (const std::string kind : {"nf4", "fp4"}) {
    for (const std::string scales : {"plain", "nested"}) {
      const std::string module = kind + ".64." + scales;
      const QuantTensor weight = checkpoint->linear(module);
      for (const auto& [name, tensor] : bnb_encoding().encode(module, weight)) {
        SCOPED_TRACE(name);
        const Tensor original = checkpoint->tensor(name);
        if (name.find("quant_state") == std::string::npos) {
          EXPECT_EQ(tensor.shape(), original.shape());
          // Maps are compared as numbers: theirs has a -0.
          const bool map = name.ends_with("quant_map");
          EXPECT_TRUE(map ? same_numbers(tensor, original)
                          : std::ranges::equal(tensor.bytes(), original.bytes()));
          continue;
        }
        const auto parse = [](const Tensor& t) {
          return parse_bnb_state({reinterpret_cast<const char*>(t.bytes().data()), t.byte_size()},
                                 "state");
        };
        EXPECT_EQ(parse(tensor).rows, parse(original).rows);
        EXPECT_EQ(parse(tensor).block, parse(original).block);
        EXPECT_EQ(parse(tensor).dtype, parse(original).dtype);
        EXPECT_EQ(parse(tensor).nested, parse(original).nested);
        EXPECT_EQ(parse(tensor).nested_offset, parse(original).nested_offset);
      }
    }
  }
  const QuantTensor weight = checkpoint->linear("int8");
  for (const auto& [name, tensor] : bnb_encoding().encode("int8", weight)) {
    if (name == "int8.SCB") continue;  // several maxima give one scale
    EXPECT_TRUE(std::ranges::equal(tensor.bytes(), checkpoint->tensor(name).bytes())) << name;
  }
}

// The golden checkpoint with one tensor replaced, or left out when it is empty.
void read_with(const std::string& module, const std::string& replaced, const Tensor& tensor) {
  const auto source = open_checkpoint(golden());
  test::TempDir dir;
  std::vector<StoredTensor> plan;
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const std::string& name : source->names()) {
    const Tensor stored = name == replaced ? tensor : source->tensor(name);
    if (!name.starts_with(module + ".") || stored.empty()) continue;
    plan.push_back({name, stored.dtype(), stored.shape()});
    tensors.emplace_back(name, stored);
  }
  ShardedWriter writer(dir.path(), plan);
  for (const auto& [name, stored] : tensors) writer.write(name, stored);
  writer.finish();
  const Json& config = source->config();
  write_config(dir.path(), config, config.at("quantization_config"));
  open_checkpoint(dir.path())->linear(module);
}

TEST(Bnb, RefusesTensorsThatDoNotFit) {
  const std::string module = "nf4.64.nested", weight = module + ".weight";
  EXPECT_NO_THROW(read_with(module, "", {}));
  for (const char* part : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"}) {
    EXPECT_ERROR(read_with(module, weight + part, Tensor::allocate(DType::kF32, {3})),
                 ErrorKind::kCorrupt, weight + part);
  }
  EXPECT_ERROR(read_with(module, weight, Tensor::allocate(DType::kU8, {17, 1})),
               ErrorKind::kCorrupt, "17 bytes for 5120 codes");
  EXPECT_ERROR(read_with(module, weight + ".quant_state.bitsandbytes__nf4", {}),
               ErrorKind::kCorrupt, "no quant_state");
  EXPECT_ERROR(read_with("int8", "int8.SCB", Tensor::allocate(DType::kF32, {39})),
               ErrorKind::kCorrupt, "int8.SCB");
  EXPECT_ERROR(read_with("int8", "int8.weight", Tensor::allocate(DType::kU8, {40, 128})),
               ErrorKind::kUnsupported, "int8.weight");
  Tensor tiled = Tensor::allocate(DType::kU8, {});
  *tiled.mutable_data<std::uint8_t>() = 1;
  EXPECT_ERROR(read_with("int8", "int8.weight_format", tiled), ErrorKind::kUnsupported,
               "order of an old kernel");
}

TEST(Bnb, RefusesDamagedStates) {
  const auto parse = [](const char* text) { return parse_bnb_state(text, "state"); };
  EXPECT_ERROR(parse("[]"), ErrorKind::kCorrupt, "object");
  EXPECT_ERROR(parse(R"({"quant_type":"int2"})"), ErrorKind::kUnsupported, "int2");
  EXPECT_ERROR(parse(R"({"quant_type":"nf4"})"), ErrorKind::kCorrupt, "shape");
  EXPECT_ERROR(parse(R"({"quant_type":"nf4","shape":[0,4]})"), ErrorKind::kCorrupt, "shape");
  EXPECT_ERROR(parse(R"({"quant_type":"nf4","shape":[4,4],"blocksize":0})"), ErrorKind::kCorrupt,
               "blocksize");
  EXPECT_ERROR(parse(R"({"quant_type":"nf4","shape":[4,4],"dtype":"float64"})"),
               ErrorKind::kUnsupported, "float64");
  EXPECT_ERROR(parse(R"({"quant_type":"nf4","shape":[4,4],"nested_offset":1e200})"),
               ErrorKind::kCorrupt, "nested_offset");
  EXPECT_ERROR(parse(R"({"quant_type":"nf4","shape":[4,4],"nested_offset":"1"})"),
               ErrorKind::kCorrupt, "nested_offset");
  EXPECT_ERROR(parse("{\"quant_type\":\"nf4\xff\"}"), ErrorKind::kCorrupt, "state");
  EXPECT_ERROR(
      parse(R"({"quant_type":"nf4","shape":[4,4],"nested_offset":1,"nested_blocksize":9})"),
      ErrorKind::kUnsupported, "256");
}

}  // namespace
}  // namespace nibble
