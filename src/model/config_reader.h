// Typed, range-checked access to the keys of a config.json object.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "base/json.h"

namespace nibble {

// Every getter takes alternative spellings of one key. A key that is absent or null counts as
// missing. kCorrupt, naming the key, for a missing value without a fallback, a value of the wrong
// type or outside the range, and spellings that contradict each other.
class ConfigReader {
 public:
  using Keys = std::initializer_list<const char*>;

  // `object` must outlive the reader; kCorrupt unless it is a JSON object. `where` names it in
  // errors.
  explicit ConfigReader(const Json& object, std::string where = "config.json");

  bool has(const char* key) const;      // present and not null
  bool is_null(const char* key) const;  // present and null

  std::int64_t integer(Keys keys, std::int64_t low, std::int64_t high) const;
  std::int64_t integer_or(Keys keys, std::int64_t low, std::int64_t high,
                          std::int64_t fallback) const;
  double number(Keys keys, double low, double high) const;
  double number_or(Keys keys, double low, double high, double fallback) const;
  bool flag_or(Keys keys, bool fallback) const;
  std::string text_or(Keys keys, const std::string& fallback) const;
  std::vector<double> numbers(const char* key, double low, double high) const;
  std::vector<std::string> texts(const char* key) const;
  // A nested object.
  ConfigReader object(const char* key) const;

  const Json& json() const { return *object_; }
  const std::string& where() const { return where_; }

 private:
  const Json* find(Keys keys) const;
  const Json& require(Keys keys) const;

  const Json* object_;
  std::string where_;
};

}  // namespace nibble
