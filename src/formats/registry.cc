#include "formats/registry.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/suggest.h"
#include "formats/families.h"
#include "formats/low_rank.h"
#include "formats/mixed_format.h"
#include "formats/trellis.h"

namespace nibble {
namespace {

constexpr std::size_t kMaxText = 256;

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::optional<std::int64_t> parse_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

[[noreturn]] void fail_no_format(std::string_view text) {
  std::vector<std::string> names;
  for (const FormatAlias& alias : format_aliases()) names.push_back(alias.name);
  fail(ErrorKind::kUsage, "format '{}' is unknown{} (see `nibble list formats`)",
       text.substr(0, kMaxText), did_you_mean(text, names));
}

// A weight format and whether its text named the type of scales.
struct ParsedWeight {
  WeightDescriptor descriptor;
  bool scale_type_named = false;
};

// Takes one word of a scheme; false when it is none, or its kind was given already.
class SchemeParser {
 public:
  bool take(std::string_view word, ParsedWeight& out) {
    Scheme& scheme = out.descriptor.scheme;
    Element& element = out.descriptor.element;
    const bool integer = is_integer(element);
    if (integer && word.starts_with("x")) {
      const auto columns = parse_number(word.substr(1));
      if (!columns) return false;
      element.kind = ElementKind::kIntSplit;
      scheme.outliers = *columns;
      return once(outliers_);
    }
    if (word == "exl3" && element.kind == ElementKind::kTrellis) {
      element.two_sided = true;
      return once(two_sided_);
    }
    if (word == "own" && element.kind == ElementKind::kFitted) {
      scheme.own_tables = true;
      return once(own_);
    }
    if (word == "tensor" || word == "channel") {
      scheme.granularity = word == "tensor" ? Granularity::kTensor : Granularity::kChannel;
      return once(granularity_);
    }
    if (integer && (word == "sym" || word == "asym")) {
      scheme.symmetric = word == "sym";
      return once(symmetry_);
    }
    if (word.starts_with("g")) {
      const auto group = parse_number(word.substr(1));
      if (!group) return false;
      scheme.granularity = Granularity::kGroup;
      scheme.group = *group;
      return once(granularity_);
    }
    if (word.starts_with("b")) {
      if (take_block(word.substr(1), scheme)) return once(granularity_);
    }
    for (const auto& [name, rule] : kRules) {
      const bool of_integers = rule == ScaleRule::kStrict || rule == ScaleRule::kFull;
      if (integer != of_integers || word != name) continue;
      scheme.rule = rule;
      return once(rule_);
    }
    return word.starts_with("s") && take_scale_type(word.substr(1), integer, scheme) &&
           once(out.scale_type_named);
  }

  // The rule of scales when none is named.
  void finish(WeightDescriptor& descriptor) const {
    Scheme& scheme = descriptor.scheme;
    const Element& element = descriptor.element;
    const bool signs =
        element.kind == ElementKind::kCodebook &&
        (element.codebook == Codebook::kBinary || element.codebook == Codebook::kTernary);
    if (rule_) return;
    if (scheme.scale_type == DType::kF8E8M0) scheme.rule = ScaleRule::kFloor;
    if (signs && is_float_weight(scheme.scale_type)) scheme.rule = ScaleRule::kMean;
  }

 private:
  static constexpr std::pair<std::string_view, ScaleRule> kRules[] = {
      {"floor", ScaleRule::kFloor},     {"ceil", ScaleRule::kCeil},
      {"best", ScaleRule::kLeastError}, {"4over6", ScaleRule::kFourOverSix},
      {"mean", ScaleRule::kMean},       {"strict", ScaleRule::kStrict},
      {"full", ScaleRule::kFull}};

  // "<rows>x<columns>"
  static bool take_block(std::string_view sizes, Scheme& scheme) {
    const std::size_t at = sizes.find('x');
    if (at == std::string_view::npos) return false;
    const auto rows = parse_number(sizes.substr(0, at));
    const auto cols = parse_number(sizes.substr(at + 1));
    if (!rows || !cols) return false;
    scheme.granularity = Granularity::kBlock;
    scheme.block_rows = *rows;
    scheme.group = *cols;
    return true;
  }

  static bool take_scale_type(std::string_view name, bool integer, Scheme& scheme) {
    if (const auto type = plain_float_named(name)) {
      scheme.scale_type = *type;
    } else if (integer) {
      return false;
    } else if (name == "e8m0") {
      scheme.scale_type = DType::kF8E8M0;
    } else if (name == "e4m3") {
      scheme.scale_type = DType::kF8E4M3;
      scheme.second_level = SecondLevel::kTensor;
    } else if (name == "dq8") {
      scheme.scale_type = DType::kU8;
      scheme.second_level = SecondLevel::kDynamic;
    } else {
      return false;
    }
    return true;
  }

  static bool once(bool& seen) { return !std::exchange(seen, true); }

  bool granularity_ = false;
  bool symmetry_ = false;
  bool rule_ = false;
  bool outliers_ = false;
  bool own_ = false;
  bool two_sided_ = false;
};

// "e4m3", "e4m3fnuz", "e3m4b2.5".
std::optional<FloatBits> parse_float_bits(std::string_view text) {
  if (text.size() < 4 || text[0] != 'e' || text[2] != 'm') return std::nullopt;
  const std::size_t digits =
      text.find_first_not_of("0123456789", 3) == 5 || text.size() == 5 ? 2 : 1;
  const auto exponent = parse_number(text.substr(1, 1));
  const auto mantissa = parse_number(text.substr(3, digits));
  if (!exponent || !mantissa) return std::nullopt;
  FloatBits type;
  type.exponent = static_cast<int>(*exponent);
  type.mantissa = static_cast<int>(*mantissa);
  type.kind = default_kind(type.exponent, type.mantissa);
  text.remove_prefix(3 + digits);
  constexpr std::pair<std::string_view, FloatKind> kKinds[] = {{"fnuz", FloatKind::kFnuz},
                                                               {"fn", FloatKind::kFn},
                                                               {"ieee", FloatKind::kIeee},
                                                               {"all", FloatKind::kAllFinite}};
  for (const auto& [name, kind] : kKinds) {
    if (!text.starts_with(name)) continue;
    type.kind = kind;
    text.remove_prefix(name.size());
    break;
  }
  type.bias = default_bias(type.exponent, type.kind);
  if (text.empty()) return type;
  if (text[0] != 'b') return std::nullopt;
  const auto [end, error] = std::from_chars(text.data() + 1, text.data() + text.size(), type.bias);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return type;
}

// The element and how many words it took; 0 when it is none.
std::size_t parse_element(const std::vector<std::string_view>& words, Element& element) {
  if (const auto codebook = parse_codebook(words[0])) {
    element.kind = ElementKind::kCodebook;
    element.codebook = *codebook;
    element.bits = table_of(*codebook).bits();
    return 1;
  }
  if (words[0].starts_with("fp") && words.size() > 1) {
    const auto bits = parse_number(words[0].substr(2));
    const auto type = parse_float_bits(words[1]);
    if (!bits || !type || *bits != code_bits(*type)) return 0;
    element.kind = ElementKind::kFloatBits;
    element.float_bits = *type;
    element.bits = code_bits(*type);
    return 2;
  }
  struct Counted {  // a name with its number of bits behind it
    std::string_view name;
    ElementKind kind;
    Fit fit;
  };
  constexpr Counted kCounted[] = {{"lloyd", ElementKind::kFitted, Fit::kLloydMax},
                                  {"quantile", ElementKind::kFitted, Fit::kQuantiles},
                                  {"trellis", ElementKind::kTrellis, {}},
                                  {"int", ElementKind::kInt, {}}};
  for (const auto& [name, kind, fit] : kCounted) {
    if (!words[0].starts_with(name)) continue;
    const auto bits = parse_number(words[0].substr(name.size()));
    if (!bits || *bits < 0 || *bits > 64) return 0;
    element.kind = kind;
    element.fit = fit;
    element.bits = static_cast<int>(*bits);
    return 1;
  }
  return 0;
}

// Null when the text does not follow the grammar; limits are make_format()'s.
std::optional<ParsedWeight> parse_weight(std::string_view text) {
  ParsedWeight parsed;
  if (const auto type = plain_float_named(text)) {
    parsed.descriptor.element = {ElementKind::kFloat, static_cast<int>(8 * dtype_size(*type)),
                                 *type};
    return parsed;
  }
  if (const auto type = block_type_named(text)) {
    parsed.descriptor.element = {.kind = ElementKind::kBlock, .bits = 8, .block = *type};
    return parsed;
  }
  if (const auto runs = parse_mixed_name(text)) {
    parsed.descriptor.element = {.kind = ElementKind::kMixed, .bits = 8, .runs = *runs};
    return parsed;
  }
  const std::vector<std::string_view> words = split(text, '_');
  const std::size_t taken = parse_element(words, parsed.descriptor.element);
  if (taken == 0) return std::nullopt;
  Scheme& scheme = parsed.descriptor.scheme;
  const ElementKind kind = parsed.descriptor.element.kind;
  scheme.symmetric = kind != ElementKind::kInt;
  // The scale of a small float takes up what its narrow range leaves open: 16 bits may be too few.
  if (kind != ElementKind::kInt && kind != ElementKind::kTrellis) scheme.scale_type = DType::kF32;
  SchemeParser parser;
  for (std::size_t i = taken; i < words.size(); ++i) {
    if (!parser.take(words[i], parsed)) return std::nullopt;
  }
  parser.finish(parsed.descriptor);
  return parsed;
}

// Takes "_lr<rank>" off the end; 0 when there is none.
int take_rank(std::string& text) {
  constexpr std::string_view kWord = "_lr";
  const std::size_t at = text.rfind(kWord);
  if (at == std::string::npos) return 0;
  const auto rank = parse_number(std::string_view(text).substr(at + kWord.size()));
  if (!rank || *rank < 1 || *rank > std::numeric_limits<int>::max()) return 0;
  text.resize(at);
  return static_cast<int>(*rank);
}

ParsedWeight require_weight(std::string_view text) {
  std::string words(text.substr(0, kMaxText + 1));
  std::ranges::replace(words, ':', '_');  // element:scheme is written too
  const int rank = take_rank(words);
  auto parsed = text.size() <= kMaxText ? parse_weight(words) : std::nullopt;
  if (!parsed) fail_no_format(text);
  if (rank > 0) {
    parsed->descriptor = with_low_rank(make_format(parsed->descriptor), rank)->descriptor();
  }
  return *parsed;
}

// "int4_head_hadamard": formats with codes have the scheme of a scale and an offset a head.
std::string kv_part(const KvFormat& format) {
  const std::string scheme = is_quantized(format.type) ? "_head" : "";
  return std::string(to_string(format.type)) + scheme + (format.hadamard ? "_hadamard" : "");
}

KvFormat parse_kv_part(std::string_view value) {
  std::vector<std::string> parts;
  for (const std::string& name : kv_format_names()) {
    const KvFormat format = *parse_kv_format(name);
    if (kv_part(format) == value) return format;
    parts.push_back(kv_part(format));
  }
  fail(ErrorKind::kUsage, "format part 'kv={}' is unknown{}; there are {}",
       value.substr(0, kMaxText), did_you_mean(value, parts), fmt::join(parts, ", "));
}

// What a short name says of weights; other text as it is.
std::string_view resolve_weights(std::string_view text) {
  for (const FormatAlias& alias : format_aliases()) {
    if (alias.name != text) continue;
    const std::string_view definition = alias.definition;
    return definition.substr(2, definition.find(',') - 2);  // after "w="
  }
  return text;
}

void set_part(ModelFormat& format, std::string_view key, std::string_view value) {
  if (key == "w" || key == "e") {
    const ParsedWeight parsed = require_weight(resolve_weights(value));
    (key == "w" ? format.weights : format.embeddings) = make_format(parsed.descriptor);
    if (parsed.scale_type_named) format.scale_type_from_checkpoint = false;
    return;
  }
  if (key == "kv") {
    format.kv = parse_kv_part(value);
    return;
  }
  format.activations = parse_activation_format(value);
}

ModelFormat parse_parts(std::string_view text) {
  ModelFormat format;
  std::string seen;
  for (const std::string_view part : split(text, ',')) {
    const std::size_t at = part.find('=');
    const std::string_view key = part.substr(0, at);
    if (at == std::string_view::npos || (key != "w" && key != "e" && key != "kv" && key != "a")) {
      fail(ErrorKind::kUsage, "format '{}': '{}' is no part; parts are w=, e=, kv= and a=", text,
           part);
    }
    if (seen.find(fmt::format(",{},", key)) != std::string::npos) {
      fail(ErrorKind::kUsage, "format '{}': '{}=' occurs twice", text, key);
    }
    seen += fmt::format(",{},", key);
    set_part(format, key, part.substr(at + 1));
  }
  return format;
}

FormatPtr make_table(const WeightDescriptor& descriptor) {
  const Element& element = descriptor.element;
  if (element.kind == ElementKind::kFloatBits) {
    const std::string reason = why_not(element.float_bits);
    if (!reason.empty()) fail(ErrorKind::kUnsupported, "float weights of {}", reason);
    if (!element.float_bits.has_sign) fail(ErrorKind::kUnsupported, "float weights need a sign");
    NIBBLE_CHECK(element.bits == code_bits(element.float_bits));
  }
  return make_table_format(descriptor);
}

}  // namespace

const std::vector<FormatAlias>& format_aliases() {
  static const std::vector<FormatAlias> aliases = {
#define NIBBLE_FORMAT(name, definition) {#name, definition},
#include "formats/registry.def"
#undef NIBBLE_FORMAT
  };
  return aliases;
}

ModelFormat parse_model_format(std::string_view text) {
  for (const FormatAlias& alias : format_aliases()) {
    if (alias.name == text) return parse_parts(alias.definition);
  }
  if (text.size() > kMaxText) fail_no_format(text);
  if (text.find('=') != std::string_view::npos) return parse_parts(text);
  ModelFormat format;
  set_part(format, "w", text);
  return format;
}

std::optional<DType> plain_float_named(std::string_view text) {
  if (text == "f32") return DType::kF32;
  // And as the words of other floats spell them.
  if (text == "f16" || text == "fp16_e5m10") return DType::kF16;
  if (text == "bf16" || text == "fp16_e8m7") return DType::kBF16;
  return std::nullopt;
}

std::size_t take_element(const std::vector<std::string_view>& words, Element& element) {
  return parse_element(words, element);
}

FormatPtr parse_weight_format(std::string_view text) {
  return make_format(require_weight(resolve_weights(text)).descriptor);
}

FormatPtr make_format(const WeightDescriptor& descriptor) {
  const Element& element = descriptor.element;
  if (element.kind == ElementKind::kFloat) {
    if (!is_float_weight(element.float_type)) {
      fail(ErrorKind::kUnsupported, "weights cannot be stored as {}",
           to_string(element.float_type));
    }
    return make_float_format(descriptor);
  }
  if (element.kind == ElementKind::kTrellis) return make_trellis_format(descriptor);
  if (element.kind == ElementKind::kLowRank) return make_low_rank_format(descriptor);
  if (element.kind == ElementKind::kBlock) return block_format(element.block);
  if (element.kind == ElementKind::kMixed) return make_mixed_format(descriptor);
  const Scheme& scheme = descriptor.scheme;
  const bool block = scheme.granularity == Granularity::kBlock;
  const auto fits = [](std::int64_t size) { return size >= 1 && size <= std::int64_t{1} << 20; };
  if ((block || scheme.granularity == Granularity::kGroup) && !fits(scheme.group)) {
    fail(ErrorKind::kUnsupported, "group of {} weights: 1 to 2^20 are supported", scheme.group);
  }
  if (block && !fits(scheme.block_rows)) {
    fail(ErrorKind::kUnsupported, "block of {} rows: 1 to 2^20 are supported", scheme.block_rows);
  }
  if (element.kind == ElementKind::kFitted) return make_fitted_format(descriptor);
  const bool split = element.kind == ElementKind::kIntSplit;
  if (element.kind != ElementKind::kInt && !split) return make_table(descriptor);
  if (element.bits < 2 || element.bits > 8) {
    fail(ErrorKind::kUnsupported, "integer weights of {} bits: 2 to 8 are supported", element.bits);
  }
  const bool of_signed = scheme.rule == ScaleRule::kStrict || scheme.rule == ScaleRule::kFull;
  if (of_signed && !scheme.symmetric) {
    fail(ErrorKind::kUnsupported, "strict and full are rules for symmetric integers");
  }
  if (!is_float_weight(scheme.scale_type) || (scheme.rule != ScaleRule::kAbsmax && !of_signed) ||
      scheme.second_level != SecondLevel::kNone) {
    fail(ErrorKind::kUnsupported, "scales of integers cannot be stored as {}",
         to_string(scheme.scale_type));
  }
  return split ? make_split_format(descriptor) : make_affine_format(descriptor);
}

FormatPtr with_scale_type(const FormatPtr& format, DType scale_type) {
  if (format == nullptr || format->is_float() || format->is_block() || format->is_mixed() ||
      format->is_two_sided()) {
    return format;
  }
  if (is_low_rank(*format)) {
    const Element& element = format->descriptor().element;
    return with_low_rank(with_scale_type(make_format(*element.base), scale_type), element.rank);
  }
  WeightDescriptor descriptor = format->descriptor();
  descriptor.scheme.scale_type = scale_type;
  return make_format(descriptor);
}

ModelFormat with_half_scales(ModelFormat format, DType half) {
  if (!format.scale_type_from_checkpoint) return format;
  for (FormatPtr* part : {&format.weights, &format.embeddings}) {
    // F16 is what a name without a type of scales stands for.
    if (*part == nullptr || (*part)->descriptor().scheme.scale_type != DType::kF16) continue;
    *part = with_scale_type(*part, half);
  }
  format.scale_type_from_checkpoint = false;
  return format;
}

FormatPtr fitting_format(const FormatPtr& wanted, std::int64_t rows, std::int64_t cols) {
  constexpr std::int64_t kSmallestGroup = 16;
  if (wanted->is_float() || wanted->why_not(rows, cols).empty()) return wanted;
  if (is_low_rank(*wanted)) {
    const Element& element = wanted->descriptor().element;
    const FormatPtr base = fitting_format(make_format(*element.base), rows, cols);
    const std::int64_t rank = std::min<std::int64_t>({element.rank, rows, cols});
    return base == nullptr ? nullptr : with_low_rank(base, static_cast<int>(rank));
  }
  WeightDescriptor descriptor = wanted->descriptor();
  while (descriptor.scheme.granularity == Granularity::kGroup &&
         descriptor.scheme.group / 2 >= kSmallestGroup && descriptor.scheme.group % 2 == 0) {
    descriptor.scheme.group /= 2;
    const FormatPtr smaller = make_format(descriptor);
    if (smaller->why_not(rows, cols).empty()) return smaller;
  }
  return nullptr;
}

}  // namespace nibble
