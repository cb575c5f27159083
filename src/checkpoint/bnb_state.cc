#include "checkpoint/bnb_state.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/json_members.h"

namespace nibble {
namespace {

constexpr std::int64_t kMaxDim = std::int64_t{1} << 40;

constexpr std::pair<DType, std::string_view> kTypes[] = {
    {DType::kF16, "float16"}, {DType::kBF16, "bfloat16"}, {DType::kF32, "float32"}};

DType parse_type(std::string_view name, const std::string& what) {
  const auto* const found =
      std::ranges::find(kTypes, name, &std::pair<DType, std::string_view>::second);
  if (found == std::end(kTypes)) fail(ErrorKind::kUnsupported, "{}: weights of '{}'", what, name);
  return found->first;
}

std::string_view name_of(DType type) {
  return std::ranges::find(kTypes, type, &std::pair<DType, std::string_view>::first)->second;
}

}  // namespace

BnbState parse_bnb_state(std::string_view text, const std::string& what) {
  const Json json = parse_json(text, what, {.max_bytes = 1 << 16, .max_depth = 8});
  if (!json.is_object()) fail(ErrorKind::kCorrupt, "{}: no JSON object", what);
  BnbState state;
  const std::string type = text_member(json, "quant_type", "", what);
  if (type != "nf4" && type != "fp4") {
    fail(ErrorKind::kUnsupported, "{}: 4-bit type '{}'; nf4 and fp4 are supported", what, type);
  }
  state.map = type == "nf4" ? Codebook::kNf4 : Codebook::kBnb4;
  state.block = int_member(json, "blocksize", 64, what);
  const Json* shape = member(json, "shape");
  const auto is_dim = [](const Json& j) {
    return j.is_number_integer() && j.get<std::int64_t>() >= 1 && j.get<std::int64_t>() <= kMaxDim;
  };
  if (shape == nullptr || !shape->is_array() || shape->size() != 2 || !is_dim((*shape)[0]) ||
      !is_dim((*shape)[1]) || state.block < 1 || state.block > kMaxDim) {
    fail(ErrorKind::kCorrupt, "{}: no shape [rows, cols] and blocksize", what);
  }
  state.rows = (*shape)[0].get<std::int64_t>();
  state.cols = (*shape)[1].get<std::int64_t>();
  state.dtype = parse_type(text_member(json, "dtype", "bfloat16", what), what);
  const Json* offset = member(json, "nested_offset");
  if (offset == nullptr) return state;
  const double mean = offset->is_number() ? offset->get<double>() : INFINITY;
  if (std::abs(mean) > std::numeric_limits<float>::max()) {
    fail(ErrorKind::kCorrupt, "{}: nested_offset is no float32", what);
  }
  if (int_member(json, "nested_blocksize", 0, what) != kBnbNestedBlock) {
    fail(ErrorKind::kUnsupported, "{}: scales quantized again, but not in blocks of {}", what,
         kBnbNestedBlock);
  }
  state.nested = true;
  state.nested_offset = static_cast<float>(mean);
  return state;
}

std::string format_bnb_state(const BnbState& state) {
  std::string text =
      fmt::format(R"({{"quant_type": "{}", "blocksize": {}, "dtype": "{}", "shape": [{}, {}])",
                  state.map == Codebook::kNf4 ? "nf4" : "fp4", state.block, name_of(state.dtype),
                  state.rows, state.cols);
  if (state.nested) {
    text += fmt::format(
        R"(, "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {:.9g})",
        kBnbNestedBlock, state.nested_offset);
  }
  text += "}";
  NIBBLE_CHECK(text.size() <= kBnbStateBytes);
  text.resize(kBnbStateBytes, ' ');
  return text;
}

Tensor swap_nibbles(const Tensor& bytes, DType type, Shape shape) {
  Tensor out = Tensor::allocate(type, std::move(shape));
  NIBBLE_CHECK(out.byte_size() == bytes.byte_size());
  auto* to = static_cast<std::uint8_t*>(out.address());
  for (const std::byte b : bytes.bytes()) {
    const auto value = std::to_integer<unsigned>(b);
    *to++ = static_cast<std::uint8_t>(value << 4 | value >> 4);
  }
  return out;
}

}  // namespace nibble
