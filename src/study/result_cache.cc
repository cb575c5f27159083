#include "study/result_cache.h"

#include <cmath>
#include <cstdlib>
#include <limits>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/file.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr JsonLimits kLimits = {std::size_t{1} << 20, 16};

}  // namespace

ResultCache::ResultCache(fs::path directory, LogSink log)
    : directory_(std::move(directory)), log_(std::move(log)) {}

fs::path ResultCache::file_of(const std::string& key) const {
  ContentHash hash;
  hash.add(key);
  return directory_ / (hash.hex() + ".json");
}

std::optional<Json> ResultCache::find(const std::string& key) const {
  const fs::path file = file_of(key);
  std::error_code error;
  if (!fs::exists(file, error)) return std::nullopt;
  try {
    const Json entry = read_json_file(file.string(), kLimits);
    if (!entry.is_object() || !entry.contains("value") || !entry.contains("key") ||
        entry["key"] != key) {
      fail(ErrorKind::kCorrupt, "{}: is no result for this key", file.string());
    }
    return entry["value"];
  } catch (const Error& damaged) {
    log(log_, LogLevel::kWarning, fmt::format("computing a result anew: {}", damaged.what()));
    return std::nullopt;
  }
}

void ResultCache::put(const std::string& key, const Json& value) const {
  std::error_code error;
  fs::create_directories(directory_, error);
  if (error) fail(ErrorKind::kDisk, "{}: cannot create: {}", directory_.string(), error.message());
  write_file_atomic(file_of(key), Json{{"key", key}, {"value", value}}.dump(1) + "\n");
}

fs::path default_cache_directory() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty()) {
    return fs::path(cache) / "nibble";
  }
  if (const std::string home = variable("HOME"); !home.empty()) {
    return fs::path(home) / ".cache" / "nibble";
  }
  fail(ErrorKind::kUsage, "no folder for results: set XDG_CACHE_HOME or HOME, or give --cache DIR");
}

std::string hash_model(const Json& config, const WeightSource& source) {
  ContentHash hash;
  hash.add(config.dump(-1, ' ', false, Json::error_handler_t::replace));
  for (const std::string& name : source.names()) {
    const Tensor tensor = source.tensor(name);
    hash.add(
        fmt::format("\n{} {} {}\n", name, to_string(tensor.dtype()), to_string(tensor.shape())));
    hash.add(tensor.bytes());
  }
  return hash.hex();
}

double number_of(const Json& object, const char* field) {
  const auto it = object.is_object() ? object.find(field) : object.end();
  if (it == object.end() || !(it->is_number() || it->is_null())) {
    fail(ErrorKind::kCorrupt, "stored result: '{}' is no number", field);
  }
  return it->is_null() ? std::numeric_limits<double>::quiet_NaN() : it->get<double>();
}

Json number_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

}  // namespace nibble
