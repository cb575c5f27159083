#include "formats/codebook.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

namespace nibble {
namespace {

constexpr std::pair<Codebook, std::string_view> kNames[] = {
    {Codebook::kNf2, "nf2"},          {Codebook::kNf3, "nf3"},
    {Codebook::kNf4, "nf4"},          {Codebook::kBnb4, "bnb4"},
    {Codebook::kFixed8, "fixed8"},    {Codebook::kBinary, "binary"},
    {Codebook::kTernary, "ternary"},  {Codebook::kLinear8, "linear8"},
    {Codebook::kDynamic8, "dynamic8"}};

constexpr float kNf2[] = {-1.0f, 0.0f, 0.43581817f, 1.0f};
constexpr float kNf3[] = {-1.0f,       -0.53502274f, -0.24693143f, 0.0f,
                          0.18333748f, 0.38199395f,  0.62298572f,  1.0f};
// As bitsandbytes spells them: 0.9677083 for o, so the last digits differ from the formula's.
constexpr float kNf4[] = {-1.0f,
                          -0.6961928009986877f,
                          -0.5250730514526367f,
                          -0.39491748809814453f,
                          -0.28444138169288635f,
                          -0.18477343022823334f,
                          -0.09105003625154495f,
                          0.0f,
                          0.07958029955625534f,
                          0.16093020141124725f,
                          0.24611230194568634f,
                          0.33791524171829224f,
                          0.44070982933044434f,
                          0.5626170039176941f,
                          0.7229568362236023f,
                          1.0f};
constexpr float kTwelfths[] = {0, 0.0625f, 8, 12, 4, 6, 2, 3};

std::vector<float> bnb4_values() {
  std::vector<float> values;
  for (int code = 0; code < 16; ++code) {
    const float magnitude = kTwelfths[code % 8] / 12;
    values.push_back(code < 8 ? magnitude : -magnitude);
  }
  return values;
}

std::vector<float> fixed8_values() {
  std::vector<float> values;
  for (int code = 0; code < 256; ++code) {
    values.push_back(static_cast<float>(static_cast<std::int8_t>(code)) / 64);
  }
  return values;
}

std::vector<float> linear8_values() {
  std::vector<float> values;
  for (int k = -127; k <= 127; ++k) {
    values.push_back(static_cast<float>(k) / 127);
    if (k == 0) values.push_back(0);
  }
  return values;
}

// The library computes the map in float32, from both ends, each point rounded once; files hold it,
// so the same bits must come out here.
CodeTable make_dynamic_map() {
  constexpr float kFirst = 0.1f, kLast = 1.0f;
  std::vector<float> values = {0.0f, 1.0f};
  for (int i = 0; i <= 6; ++i) {
    const int parts = 1 << i;
    const float step = (kLast - kFirst) / static_cast<float>(parts);
    const auto point = [&](int k) {
      return k < (parts + 1) / 2 ? std::fma(step, static_cast<float>(k), kFirst)
                                 : std::fma(-step, static_cast<float>(parts - k), kLast);
    };
    const auto decade = static_cast<float>(std::pow(10.0, i - 6));
    for (int part = 0; part < parts; ++part) {
      const float value = decade * ((point(part) + point(part + 1)) / 2.0f);
      values.push_back(value);
      values.push_back(-value);
    }
  }
  std::ranges::sort(values);
  return CodeTable(std::move(values), TieRule::kSmallerValue, /*signed_zero=*/false);
}

}  // namespace

std::string_view to_string(Codebook codebook) {
  return std::ranges::find(kNames, codebook, [](const auto& row) { return row.first; })->second;
}

std::optional<Codebook> parse_codebook(std::string_view name) {
  for (const auto& [codebook, known] : kNames) {
    if (known == name) return codebook;
  }
  return std::nullopt;
}

CodeTable table_of(Codebook codebook) {
  const auto normal = [](auto& values) {
    return CodeTable({std::begin(values), std::end(values)}, TieRule::kSmallerValue, false);
  };
  switch (codebook) {
    case Codebook::kNf2:
      return normal(kNf2);
    case Codebook::kNf3:
      return normal(kNf3);
    case Codebook::kNf4:
      return normal(kNf4);
    case Codebook::kBnb4:
      return CodeTable(bnb4_values(), TieRule::kSmallerMagnitude, false);
    case Codebook::kBinary:
      return CodeTable({1.0f, -1.0f}, TieRule::kEvenCode, false);
    case Codebook::kTernary:
      return CodeTable({-1.0f, 0.0f, 1.0f, std::numeric_limits<float>::quiet_NaN()},
                       TieRule::kSmallerMagnitude, false);
    case Codebook::kLinear8:
      return CodeTable(linear8_values(), TieRule::kSmallerMagnitude, false);
    case Codebook::kDynamic8:
      return dynamic_map();
    case Codebook::kFixed8:
      break;
  }
  return CodeTable(fixed8_values(), TieRule::kEvenCode, false);
}

const CodeTable& dynamic_map() {
  static const CodeTable map = make_dynamic_map();
  return map;
}

}  // namespace nibble
