#include "quantize/measurements.h"

#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace nibble {
namespace {

constexpr int kVersion = 1;

template <class Member>
const Json& member(const Json& object, const char* name, const std::string& what,
                   const Member& is_right) {
  const auto found = object.is_object() ? object.find(name) : object.end();
  if (!object.is_object() || found == object.end() || !is_right(*found)) {
    fail(ErrorKind::kCorrupt, "{}: no usable member '{}'; remove the file and measure again", what,
         name);
  }
  return *found;
}

bool is_text(const Json& json) { return json.is_string(); }
bool is_layer(const Json& json) {
  return json.is_number_unsigned() && json.get<std::uint64_t>() <= std::uint64_t{1} << 32;
}
bool is_kl(const Json& json) {
  // Not a number where the model with this format computed none.
  return json.is_null() || (json.is_number() && std::isfinite(json.get<double>()));
}

}  // namespace

Measurements::Measurements(std::filesystem::path file, std::string key)
    : file_(std::move(file)), key_(std::move(key)) {
  if (std::filesystem::exists(file_)) parse(read_text_file(file_));
}

void Measurements::parse(std::string_view text) {
  const std::string what = file_.string();
  const Json json = parse_json(text, what);
  member(json, "nibble_measurements", what,
         [](const Json& version) { return version == kVersion; });
  if (member(json, "key", what, is_text).get<std::string>() != key_) {
    fail(ErrorKind::kUsage,
         "{}: measured for another model, recipe, calibration text or version; choose another file "
         "or remove it",
         what);
  }
  for (const Json& row : member(json, "rows", what, [](const Json& j) { return j.is_array(); })) {
    const Json& kl = member(row, "kl", what, is_kl);
    values_[{member(row, "layer", what, is_layer).get<std::int64_t>(),
             member(row, "group", what, is_text).get<std::string>(),
             member(row, "format", what, is_text).get<std::string>()}] =
        kl.is_null() ? std::nan("") : kl.get<double>();
  }
}

std::optional<double> Measurements::find(std::int64_t layer, const std::string& group,
                                         const std::string& format) const {
  const auto found = values_.find({layer, group, format});
  if (found == values_.end()) return std::nullopt;
  return found->second;
}

void Measurements::set(std::int64_t layer, const std::string& group, const std::string& format,
                       double kl) {
  values_[{layer, group, format}] = kl;
}

void Measurements::save() const {
  Json rows = Json::array();
  for (const auto& [at, kl] : values_) {
    const auto& [layer, group, format] = at;
    rows.push_back({{"layer", layer},
                    {"group", group},
                    {"format", format},
                    {"kl", std::isfinite(kl) ? Json(kl) : Json(nullptr)}});
  }
  write_file_atomic(
      file_,
      Json{{"nibble_measurements", kVersion}, {"key", key_}, {"rows", std::move(rows)}}.dump(1) +
          '\n');
}

}  // namespace nibble
