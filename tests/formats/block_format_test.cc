// Blocks of ggml: decoders against the Python package gguf, encoders against the errors that
// llama.cpp's own leave on the same values.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numeric>
#include <random>

#include "base/json.h"
#include "formats/block_decode.h"
#include "formats/block_encode.h"
#include "formats/registry.h"
#include "support/hex.h"
#include "support/test_data.h"

namespace nibble {
namespace {

std::uint32_t crc32(std::span<const std::byte> bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const std::byte byte : bytes) {
    crc ^= std::to_integer<std::uint32_t>(byte);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc;
}

std::vector<float> decoded(BlockType type, const std::vector<std::uint8_t>& bytes) {
  const BlockLayout& layout = layout_of(type);
  const std::size_t blocks = bytes.size() / static_cast<std::size_t>(layout.bytes);
  std::vector<float> values(blocks * static_cast<std::size_t>(layout.elements));
  for (std::size_t b = 0; b < blocks; ++b) {
    block_decoder(type)(bytes.data() + b * static_cast<std::size_t>(layout.bytes),
                        values.data() + b * static_cast<std::size_t>(layout.elements));
  }
  for (float& v : values) v += 0.0f;  // the sign of zero is not compared
  return values;
}

// Names of the formats of this family, where another one has the plain name.
std::string format_name(const std::string& name) {
  return name == "mxfp4" || name == "nvfp4" ? name + "_gguf" : name;
}

TEST(BlockDecoders, GiveWhatTheGgufPackageGives) {
  const Json golden =
      read_json_file((test::source_dir() / "tests/golden/formats/blocks.json").string());
  ASSERT_EQ(golden.size(), 23u);
  for (const auto& [name, row] : golden.items()) {
    const auto type = block_type_named(format_name(name));
    ASSERT_TRUE(type.has_value()) << name;
    const std::vector<float> y = decoded(*type, test::from_hex(row.at("hex").get<std::string>()));
    const auto samples = row.at("samples").get<std::vector<float>>();
    EXPECT_EQ(y.front(), samples[0]) << name;
    EXPECT_EQ(y[y.size() / 2], samples[1]) << name;
    EXPECT_EQ(y.back(), samples[2]) << name;
    EXPECT_EQ(crc32(std::as_bytes(std::span(y))), row.at("crc32").get<std::uint32_t>()) << name;
  }
}

// Sums over ggml's own decoders, of a block of bytes 73 i + 41 with scales 1 and minimums 0.5.
TEST(BlockDecoders, GiveTheSumsOfTheTypesThatThePackageLeavesOut) {
  struct Case {
    BlockType type;
    double sum, weighted;
  };
  for (const Case& c : {Case{BlockType::kQ1_0, -6, -702}, Case{BlockType::kQ2_0, 27, 769}}) {
    const BlockLayout& layout = layout_of(c.type);
    std::vector<std::uint8_t> block(static_cast<std::size_t>(layout.bytes));
    for (std::size_t i = 0; i < block.size(); ++i)
      block[i] = static_cast<std::uint8_t>(73 * i + 41);
    block[0] = 0x00;
    block[1] = 0x3c;
    const std::vector<float> y = decoded(c.type, block);
    double sum = 0, weighted = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      sum += y[i];
      weighted += static_cast<double>(i + 1) * y[i];
    }
    EXPECT_EQ(sum, c.sum) << layout.name;
    EXPECT_EQ(weighted, c.weighted) << layout.name;
  }
}

// 256 values of a linear congruential generator, uniform in [-1, 1).
std::vector<float> uniform_values() {
  std::vector<float> values;
  std::uint32_t state = 12345;
  for (int i = 0; i < 256; ++i) {
    state = state * 1664525 + 1013904223;
    values.push_back(static_cast<float>(static_cast<int>(state >> 8) - (1 << 23)) / (1 << 23));
  }
  return values;
}

double relative_error(const Format& format, const std::vector<float>& w,
                      std::span<const float> importance = {}) {
  const auto cols = static_cast<std::int64_t>(w.size());
  Codec codec;
  codec.importance = importance;
  const QuantTensor t = format.encode(w.data(), 1, cols, codec);
  validate(t);
  std::vector<float> y(w.size());
  decode_all(t, y.data());
  double error = 0, all = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double weight = importance.empty() ? 1 : static_cast<double>(importance[i]);
    error += weight * (y[i] - w[i]) * (y[i] - w[i]);
    all += weight * w[i] * w[i];
  }
  return std::sqrt(error / all);
}

// What llama.cpp's encoders leave (root mean square, relative) without an importance matrix.
TEST(BlockEncoders, LeaveNoMoreErrorThanLlamaCpp) {
  constexpr std::pair<const char*, double> kBars[] = {
      {"q4_0", 0.070602},       {"q4_1", 0.061417},       {"q5_0", 0.032678},
      {"q5_1", 0.030326},       {"q8_0", 0.003953},       {"q2_k", 0.222496},
      {"q3_k", 0.126701},       {"q4_k", 0.055191},       {"q5_k", 0.028481},
      {"q6_k", 0.013443},       {"iq4_nl", 0.065181},     {"iq4_xs", 0.066257},
      {"mxfp4_gguf", 0.142427}, {"nvfp4_gguf", 0.098465}, {"tq1_0", 0.511847},
      {"tq2_0", 0.511847}};
  const std::vector<float> w = uniform_values();
  EXPECT_FLOAT_EQ(w[0], -0.95919466f);
  EXPECT_FLOAT_EQ(w[255], -0.305741191f);
  std::size_t encoders = 0;
  for (const BlockLayout& layout : block_layouts())
    encoders += block_encoder(layout.type) != nullptr;
  EXPECT_EQ(encoders, std::size(kBars));
  for (const auto& [name, bar] : kBars) {
    const double error = relative_error(*parse_weight_format(name), w);
    EXPECT_LE(error, bar) << name;
    EXPECT_GT(error, bar / 4) << name;  // and not by a mistake of the measure
    RecordProperty(name, std::to_string(error / bar));
  }
}

// What importance counts for: the weighted error falls, and columns of none may have any values.
TEST(BlockEncoders, MinimiseTheWeightedError) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> w(1024), importance(1024);
  for (float& x : w) x = normal(random);
  for (float& x : importance) x = std::exp(4 * std::normal_distribution<float>()(random));
  for (const BlockLayout& layout : block_layouts()) {
    if (block_encoder(layout.type) == nullptr) continue;
    const FormatPtr format = parse_weight_format(layout.name);
    const QuantTensor plain = format->encode(w.data(), 1, 1024);
    std::vector<float> y(1024);
    decode_all(plain, y.data());
    double error = 0, all = 0;
    for (std::size_t i = 0; i < 1024; ++i) {
      error += static_cast<double>(importance[i]) * (y[i] - w[i]) * (y[i] - w[i]);
      all += static_cast<double>(importance[i]) * w[i] * w[i];
    }
    EXPECT_LT(relative_error(*format, w, importance), std::sqrt(error / all)) << layout.name;
  }
  const std::vector<float> none(1024, 0.0f);
  for (const BlockLayout& layout : block_layouts()) {
    if (block_encoder(layout.type) == nullptr) continue;
    const FormatPtr format = parse_weight_format(layout.name);
    Codec codec;
    codec.importance = none;
    std::vector<float> y(1024);
    decode_all(format->encode(w.data(), 1, 1024, codec), y.data());
    for (const float value : y) ASSERT_TRUE(std::isfinite(value)) << layout.name;
  }
}

// Values that a block can say come back exactly where one scale is all there is.
TEST(BlockEncoders, KeepWhatTheyCanSay) {
  std::mt19937 random(3);
  for (const char* name : {"q4_0", "q5_0", "q8_0", "iq4_nl", "tq1_0", "tq2_0", "mxfp4_gguf"}) {
    const FormatPtr format = parse_weight_format(name);
    const BlockType type = format->descriptor().element.block;
    std::vector<float> w(256);
    for (float& x : w) x = std::normal_distribution<float>(0, 1)(random);
    std::vector<float> once(256), twice(256);
    decode_all(format->encode(w.data(), 1, 256), once.data());
    decode_all(format->encode(once.data(), 1, 256), twice.data());
    EXPECT_EQ(once, twice) << layout_of(type).name;
  }
}

TEST(BlockFormats, SayWhatTheyCannotDo) {
  const std::vector<float> w(512, 1.0f);
  EXPECT_EQ(parse_weight_format("q4_k")->why_not(2, 128),
            "blocks of 256 do not divide 128 columns");
  EXPECT_ERROR(parse_weight_format("q4_k")->encode(w.data(), 4, 128), ErrorKind::kUsage, "128");
  EXPECT_ERROR(parse_weight_format("iq2_xs")->encode(w.data(), 2, 256), ErrorKind::kUnsupported,
               "not quantized to");
  Codec codec;
  codec.rounding = Rounding::kStochastic;
  EXPECT_ERROR(parse_weight_format("q8_0")->encode(w.data(), 2, 256, codec),
               ErrorKind::kUnsupported, "nearest");
}

}  // namespace
}  // namespace nibble
