// What each format costs each group of modules: kept in a file, so that other targets can be met
// without measuring again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

namespace nibble {

// A file of measurements belongs to a key, which names all that they depend on: the model, the
// steps of the recipe, the tokens. save() writes it whole. Not thread-safe.
class Measurements {
 public:
  // Takes up what the file holds, if there is one. kUsage when it belongs to another key, kCorrupt
  // when it is damaged.
  Measurements(std::filesystem::path file, std::string key);

  // The mean KL (nats) when the modules of a group alone are stored in a format.
  std::optional<double> find(std::int64_t layer, const std::string& group,
                             const std::string& format) const;
  void set(std::int64_t layer, const std::string& group, const std::string& format, double kl);
  // kDisk when it cannot be written.
  void save() const;

  // Fills from the text of a file; errors as the constructor.
  void parse(std::string_view text);

 private:
  std::filesystem::path file_;
  std::string key_;
  std::map<std::tuple<std::int64_t, std::string, std::string>, double> values_;
};

}  // namespace nibble
