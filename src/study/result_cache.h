// Results of long studies, kept on disk by what they were computed from.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/log.h"
#include "formats/weight_source.h"

namespace nibble {

// A result belongs to a key: text that names everything it depends on (content of the model, the
// tokens, the setting, the version of the computation). One file a result, written whole or not at
// all, so that any number of processes may share a directory.
class ResultCache {
 public:
  // The directory is made by the first put().
  ResultCache(std::filesystem::path directory, LogSink log);

  // Nothing when there is none, and, with a warning, when the file is damaged or says another key.
  std::optional<Json> find(const std::string& key) const;
  // kDisk when it cannot be written.
  void put(const std::string& key, const Json& value) const;

  const std::filesystem::path& directory() const { return directory_; }
  // Where the result of a key lies.
  std::filesystem::path file_of(const std::string& key) const;

 private:
  std::filesystem::path directory_;
  LogSink log_;
};

// "nibble" below $XDG_CACHE_HOME, or below ~/.cache. kUsage when neither variable is set.
std::filesystem::path default_cache_directory();

// The hash of a model: its configuration and the name, type, shape and bytes of every tensor,
// however they are spread over files.
std::string hash_model(const Json& config, const WeightSource& source);

// A number of a stored result; NaN for null. kCorrupt when it is missing or no number.
double number_of(const Json& object, const char* field);
// NaN and infinity, which JSON has no word for, as null.
Json number_or_null(double value);

}  // namespace nibble
