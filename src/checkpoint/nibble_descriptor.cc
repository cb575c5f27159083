#include "checkpoint/nibble_descriptor.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>

namespace nibble {
namespace {

constexpr std::array<std::string_view, 3> kGranularities = {"tensor", "channel", "group"};

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

}  // namespace

Json to_json(const WeightDescriptor& d) {
  NIBBLE_CHECK(d.element.kind == ElementKind::kInt);
  Json scheme = {{"granularity", kGranularities[static_cast<std::size_t>(d.scheme.granularity)]},
                 {"symmetric", d.scheme.symmetric},
                 {"scale_type", to_string(d.scheme.scale_type)}};
  if (d.scheme.granularity == Granularity::kGroup) scheme["group"] = d.scheme.group;
  return {{"element", {{"kind", "int"}, {"bits", d.element.bits}}}, {"scheme", scheme}};
}

WeightDescriptor descriptor_from_json(const Json& json, const std::string& what) {
  Members members(json, what);
  Members element(members.get("element"), what + ".element");
  Members scheme(members.get("scheme"), what + ".scheme");
  members.finish();

  const std::string kind = element.text("kind");
  if (kind != "int") fail(ErrorKind::kUnsupported, "{}: elements of kind '{}'", what, kind);
  const std::int64_t bits = element.integer("bits");
  if (bits < 1 || bits > 64) fail(ErrorKind::kCorrupt, "{}: {} bits", what, bits);
  element.finish();

  WeightDescriptor descriptor;
  descriptor.element = {.kind = ElementKind::kInt, .bits = static_cast<int>(bits)};
  const std::string granularity = scheme.text("granularity");
  const auto found = std::ranges::find(kGranularities, granularity);
  if (found == kGranularities.end()) {
    fail(ErrorKind::kCorrupt, "{}: granularity '{}'", what, granularity);
  }
  descriptor.scheme.granularity = static_cast<Granularity>(found - kGranularities.begin());
  if (descriptor.scheme.granularity == Granularity::kGroup) {
    descriptor.scheme.group = scheme.integer("group");
  }
  descriptor.scheme.symmetric = scheme.boolean("symmetric");
  descriptor.scheme.scale_type = scheme.dtype("scale_type");
  scheme.finish();
  return descriptor;
}

}  // namespace nibble
