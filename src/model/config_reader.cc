#include "model/config_reader.h"

#include <cmath>
#include <utility>

#include "base/error.h"

namespace nibble {
namespace {

// A short text of any value, for messages.
std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text.replace(57, std::string::npos, "...");
  return text;
}

double to_number(const Json& value, const std::string& what, double low, double high) {
  if (!value.is_number()) fail(ErrorKind::kCorrupt, "{} is {}, not a number", what, shown(value));
  const double number = value.get<double>();
  if (!(number >= low && number <= high)) {
    fail(ErrorKind::kCorrupt, "{} is {}, outside {} ... {}", what, shown(value), low, high);
  }
  return number;
}

}  // namespace

ConfigReader::ConfigReader(const Json& object, std::string where)
    : object_(&object), where_(std::move(where)) {
  if (!object.is_object()) fail(ErrorKind::kCorrupt, "{}: not a JSON object", where_);
}

bool ConfigReader::has(const char* key) const {
  const auto it = object_->find(key);
  return it != object_->end() && !it->is_null();
}

bool ConfigReader::is_null(const char* key) const {
  const auto it = object_->find(key);
  return it != object_->end() && it->is_null();
}

const Json* ConfigReader::find(Keys keys) const {
  const Json* found = nullptr;
  const char* found_key = nullptr;
  for (const char* key : keys) {
    if (!has(key)) continue;
    const Json& value = *object_->find(key);
    if (found != nullptr && *found != value) {
      fail(ErrorKind::kCorrupt, "{}: '{}' is {} but '{}' is {}", where_, found_key, shown(*found),
           key, shown(value));
    }
    found = &value;
    found_key = key;
  }
  return found;
}

const Json& ConfigReader::require(Keys keys) const {
  const Json* value = find(keys);
  if (value == nullptr) fail(ErrorKind::kCorrupt, "{}: '{}' is missing", where_, *keys.begin());
  return *value;
}

std::int64_t ConfigReader::integer(Keys keys, std::int64_t low, std::int64_t high) const {
  const Json& value = require(keys);
  const std::string what = fmt::format("{}: '{}'", where_, *keys.begin());
  const double number = to_number(value, what, static_cast<double>(low), static_cast<double>(high));
  if (number != std::floor(number)) {
    fail(ErrorKind::kCorrupt, "{} is {}, not a whole number", what, shown(value));
  }
  return static_cast<std::int64_t>(number);
}

std::int64_t ConfigReader::integer_or(Keys keys, std::int64_t low, std::int64_t high,
                                      std::int64_t fallback) const {
  return find(keys) == nullptr ? fallback : integer(keys, low, high);
}

double ConfigReader::number(Keys keys, double low, double high) const {
  return to_number(require(keys), fmt::format("{}: '{}'", where_, *keys.begin()), low, high);
}

double ConfigReader::number_or(Keys keys, double low, double high, double fallback) const {
  return find(keys) == nullptr ? fallback : number(keys, low, high);
}

bool ConfigReader::flag_or(Keys keys, bool fallback) const {
  const Json* value = find(keys);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    fail(ErrorKind::kCorrupt, "{}: '{}' is {}, not true or false", where_, *keys.begin(),
         shown(*value));
  }
  return value->get<bool>();
}

std::string ConfigReader::text_or(Keys keys, const std::string& fallback) const {
  const Json* value = find(keys);
  if (value == nullptr) return fallback;
  if (!value->is_string()) {
    fail(ErrorKind::kCorrupt, "{}: '{}' is {}, not a string", where_, *keys.begin(), shown(*value));
  }
  return value->get<std::string>();
}

std::vector<double> ConfigReader::numbers(const char* key, double low, double high) const {
  const Json& value = require({key});
  if (!value.is_array()) fail(ErrorKind::kCorrupt, "{}: '{}' is not a list", where_, key);
  std::vector<double> result;
  for (const Json& item : value) {
    result.push_back(to_number(item, fmt::format("{}: an item of '{}'", where_, key), low, high));
  }
  return result;
}

std::vector<std::string> ConfigReader::texts(const char* key) const {
  const Json& value = require({key});
  if (!value.is_array()) fail(ErrorKind::kCorrupt, "{}: '{}' is not a list", where_, key);
  std::vector<std::string> result;
  for (const Json& item : value) {
    if (!item.is_string()) {
      fail(ErrorKind::kCorrupt, "{}: an item of '{}' is {}, not a string", where_, key,
           shown(item));
    }
    result.push_back(item.get<std::string>());
  }
  return result;
}

ConfigReader ConfigReader::object(const char* key) const {
  return ConfigReader(require({key}), fmt::format("{}: {}", where_, key));
}

}  // namespace nibble
