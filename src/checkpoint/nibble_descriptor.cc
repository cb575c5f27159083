#include "checkpoint/nibble_descriptor.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>

#include "formats/low_rank.h"
#include "formats/registry.h"

namespace nibble {
namespace {

constexpr std::array<std::string_view, 4> kGranularities = {"tensor", "channel", "group", "block"};
constexpr std::array<std::string_view, 4> kSpecials = {"fn", "ieee", "fnuz", "none"};
constexpr std::array<std::string_view, 8> kRules = {
    "absmax", "floor", "ceil", "least_error", "four_over_six", "strict", "full", "mean"};
constexpr std::array<std::string_view, 2> kFits = {"quantiles", "lloyd_max"};
constexpr std::array<std::string_view, 3> kSecondLevels = {"none", "tensor", "dynamic"};

template <class Enum, std::size_t N>
std::string_view name_in(const std::array<std::string_view, N>& names, Enum value) {
  return names[static_cast<std::size_t>(value)];
}

// The members of an object, each of which must be asked for once: an unknown one would be part of
// a format that this version cannot compute with.
class Members {
 public:
  Members(const Json& object, const std::string& what) : object_(object), what_(what) {
    if (!object.is_object()) fail(ErrorKind::kCorrupt, "{}: no object", what);
  }

  const Json& get(const char* key) {
    const auto found = object_.find(key);
    if (found == object_.end()) fail(ErrorKind::kCorrupt, "{}: no member '{}'", what_, key);
    ++asked_;
    return *found;
  }
  bool has(const char* key) const { return object_.contains(key); }
  std::string text(const char* key) {
    const Json& value = get(key);
    if (!value.is_string()) fail(ErrorKind::kCorrupt, "{}: '{}' is no string", what_, key);
    return value.get<std::string>();
  }
  std::int64_t integer(const char* key) {
    const Json& value = get(key);
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() &&
         value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max())) {
      fail(ErrorKind::kCorrupt, "{}: '{}' is no integer", what_, key);
    }
    return value.get<std::int64_t>();
  }
  double number(const char* key) {
    const Json& value = get(key);
    if (!value.is_number()) fail(ErrorKind::kCorrupt, "{}: '{}' is no number", what_, key);
    return value.get<double>();
  }
  template <class Enum, std::size_t N>
  Enum one_of(const char* key, const std::array<std::string_view, N>& names) {
    const std::string name = text(key);
    const auto found = std::ranges::find(names, name);
    if (found == names.end()) fail(ErrorKind::kCorrupt, "{}: {} '{}'", what_, key, name);
    return static_cast<Enum>(found - names.begin());
  }
  int bits(const char* key, std::int64_t least) {
    const std::int64_t value = integer(key);
    if (value < least || value > 64) fail(ErrorKind::kCorrupt, "{}: {} {}", what_, value, key);
    return static_cast<int>(value);
  }
  bool boolean(const char* key) {
    const Json& value = get(key);
    if (!value.is_boolean()) fail(ErrorKind::kCorrupt, "{}: '{}' is no boolean", what_, key);
    return value.get<bool>();
  }
  DType dtype(const char* key) {
    const std::string name = text(key);
    const std::optional<DType> dtype = parse_dtype(name);
    if (!dtype.has_value()) fail(ErrorKind::kCorrupt, "{}: '{}' is '{}'", what_, key, name);
    return *dtype;
  }
  void finish() const {
    if (asked_ != object_.size()) {
      fail(ErrorKind::kUnsupported, "{}: members that this version of nibble does not know", what_);
    }
  }

 private:
  const Json& object_;
  std::string what_;
  std::size_t asked_ = 0;
};

Json runs_to_json(const std::vector<ColumnRun>& runs) {
  Json list = Json::array();
  for (const ColumnRun& run : runs) {
    Json entry = {{"bits", run.bits}, {"group", run.group}};
    if (run.groups > 0) entry["groups"] = run.groups;
    if (run.percent > 0) entry["percent"] = run.percent;
    list.push_back(std::move(entry));
  }
  return list;
}

// Limits are make_format()'s.
std::vector<ColumnRun> runs_from_json(const Json& list, const std::string& what) {
  if (!list.is_array()) fail(ErrorKind::kCorrupt, "{}: 'runs' is no list", what);
  std::vector<ColumnRun> runs;
  for (const Json& entry : list) {
    Members members(entry, fmt::format("{}.runs[{}]", what, runs.size()));
    ColumnRun& run = runs.emplace_back();
    run.bits = members.bits("bits", 1);
    run.group = members.integer("group");
    if (members.has("groups")) run.groups = members.integer("groups");
    if (members.has("percent")) {
      run.percent = static_cast<int>(std::clamp<std::int64_t>(members.integer("percent"), -1, 101));
    }
    members.finish();
  }
  return runs;
}

Json element_to_json(const Element& element) {
  switch (element.kind) {
    case ElementKind::kFloatBits: {
      const FloatBits& type = element.float_bits;
      return {{"kind", "float"},
              {"exponent", type.exponent},
              {"mantissa", type.mantissa},
              {"bias", type.bias},
              {"specials", name_in(kSpecials, type.kind)}};
    }
    case ElementKind::kCodebook:
      return {{"kind", "codebook"}, {"codebook", to_string(element.codebook)}};
    case ElementKind::kFitted:
      return {{"kind", "fitted"}, {"bits", element.bits}, {"fit", name_in(kFits, element.fit)}};
    case ElementKind::kIntSplit:
      return {{"kind", "int_split"}, {"bits", element.bits}};
    case ElementKind::kTrellis:
      return {{"kind", "trellis"}, {"bits", element.bits}};
    case ElementKind::kLowRank:
      return {{"kind", "low_rank"}, {"rank", element.rank}};
    case ElementKind::kBlock:
      return {{"kind", "block"}, {"block", layout_of(element.block).name}};
    case ElementKind::kMixed:
      return {{"kind", "mixed_int"}, {"runs", runs_to_json(element.runs)}};
    default:
      NIBBLE_CHECK(element.kind == ElementKind::kInt);
      return {{"kind", "int"}, {"bits", element.bits}};
  }
}

Element element_from_json(Members& members, const std::string& what) {
  Element element;
  const std::string kind = members.text("kind");
  if (kind == "int" || kind == "int_split") {
    element.kind = kind == "int" ? ElementKind::kInt : ElementKind::kIntSplit;
    element.bits = members.bits("bits", 1);
  } else if (kind == "fitted") {
    element.kind = ElementKind::kFitted;
    element.bits = members.bits("bits", 1);
    element.fit = members.one_of<Fit>("fit", kFits);
  } else if (kind == "trellis") {
    element.kind = ElementKind::kTrellis;
    element.bits = members.bits("bits", 1);
  } else if (kind == "float") {
    element.kind = ElementKind::kFloatBits;
    element.float_bits.exponent = members.bits("exponent", 1);
    element.float_bits.mantissa = members.bits("mantissa", 0);
    element.float_bits.bias = members.number("bias");
    element.float_bits.kind = members.one_of<FloatKind>("specials", kSpecials);
    element.bits = code_bits(element.float_bits);
  } else if (kind == "codebook") {
    const std::string name = members.text("codebook");
    const auto codebook = parse_codebook(name);
    if (!codebook) fail(ErrorKind::kUnsupported, "{}: codebook '{}'", what, name);
    element.kind = ElementKind::kCodebook;
    element.codebook = *codebook;
    element.bits = table_of(*codebook).bits();
  } else if (kind == "block") {
    const std::string name = members.text("block");
    const auto type = block_type_named(name);
    if (!type) fail(ErrorKind::kUnsupported, "{}: blocks of type '{}'", what, name);
    element.kind = ElementKind::kBlock;
    element.bits = 8;
    element.block = *type;
  } else if (kind == "mixed_int") {
    element.kind = ElementKind::kMixed;
    element.bits = 8;
    element.runs = runs_from_json(members.get("runs"), what);
  } else {
    fail(ErrorKind::kUnsupported, "{}: elements of kind '{}'", what, kind);
  }
  members.finish();
  return element;
}

bool has_no_scheme(const Element& element) {
  return element.kind == ElementKind::kBlock || element.kind == ElementKind::kMixed;
}

}  // namespace

Json to_json(const WeightDescriptor& d) {
  if (d.element.kind == ElementKind::kLowRank) {
    return {{"element", element_to_json(d.element)}, {"base", to_json(*d.element.base)}};
  }
  if (has_no_scheme(d.element)) return {{"element", element_to_json(d.element)}};
  Json scheme = {{"granularity", name_in(kGranularities, d.scheme.granularity)},
                 {"scale_type", to_string(d.scheme.scale_type)}};
  const bool block = d.scheme.granularity == Granularity::kBlock;
  if (block || d.scheme.granularity == Granularity::kGroup) scheme["group"] = d.scheme.group;
  if (block) scheme["block_rows"] = d.scheme.block_rows;
  if (is_integer(d.element)) {
    scheme["symmetric"] = d.scheme.symmetric;
    if (d.scheme.rule != ScaleRule::kAbsmax) scheme["rule"] = name_in(kRules, d.scheme.rule);
  } else {
    scheme["rule"] = name_in(kRules, d.scheme.rule);
    scheme["second_level"] = name_in(kSecondLevels, d.scheme.second_level);
  }
  if (d.element.kind == ElementKind::kIntSplit) scheme["outlier_columns"] = d.scheme.outliers;
  if (d.element.kind == ElementKind::kFitted) scheme["own_tables"] = d.scheme.own_tables;
  return {{"element", element_to_json(d.element)}, {"scheme", std::move(scheme)}};
}

WeightDescriptor descriptor_from_json(const Json& json, const std::string& what) {
  Members members(json, what);
  Members element(members.get("element"), what + ".element");
  if (members.has("base")) {
    const FormatPtr base = make_format(descriptor_from_json(members.get("base"), what + ".base"));
    members.finish();
    const std::string kind = element.text("kind");
    if (kind != "low_rank") fail(ErrorKind::kCorrupt, "{}: a base under '{}'", what, kind);
    const std::int64_t rank = element.integer("rank");
    element.finish();
    constexpr std::int64_t kMost = std::numeric_limits<int>::max();
    return with_low_rank(base, static_cast<int>(std::clamp<std::int64_t>(rank, 0, kMost)))
        ->descriptor();
  }
  WeightDescriptor descriptor;
  descriptor.element = element_from_json(element, what);
  if (has_no_scheme(descriptor.element)) {
    members.finish();
    return descriptor;
  }
  Members scheme(members.get("scheme"), what + ".scheme");
  members.finish();
  descriptor.scheme.granularity = scheme.one_of<Granularity>("granularity", kGranularities);
  const bool block = descriptor.scheme.granularity == Granularity::kBlock;
  if (block || descriptor.scheme.granularity == Granularity::kGroup) {
    descriptor.scheme.group = scheme.integer("group");
  }
  if (block) descriptor.scheme.block_rows = scheme.integer("block_rows");
  if (is_integer(descriptor.element)) {
    descriptor.scheme.symmetric = scheme.boolean("symmetric");
    if (scheme.has("rule")) descriptor.scheme.rule = scheme.one_of<ScaleRule>("rule", kRules);
  } else {
    descriptor.scheme.rule = scheme.one_of<ScaleRule>("rule", kRules);
    descriptor.scheme.second_level = scheme.one_of<SecondLevel>("second_level", kSecondLevels);
  }
  if (descriptor.element.kind == ElementKind::kIntSplit) {
    descriptor.scheme.outliers = scheme.integer("outlier_columns");
  }
  if (descriptor.element.kind == ElementKind::kFitted) {
    descriptor.scheme.own_tables = scheme.boolean("own_tables");
  }
  descriptor.scheme.scale_type = scheme.dtype("scale_type");
  scheme.finish();
  return descriptor;
}

}  // namespace nibble
