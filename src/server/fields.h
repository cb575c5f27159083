// Typed reading of the members of a request. Every complaint is an ApiError 400 that names the
// member. null counts as absent, as OpenAI's clients mean it.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace nibble::server {

class Fields {
 public:
  // `object` must outlive this.
  explicit Fields(const Json& object);

  const Json* find(std::string_view name);  // nullptr when absent
  std::optional<std::string> text(std::string_view name);
  std::optional<bool> boolean(std::string_view name);
  // Whole numbers in [least, most]; 5.0 is one.
  std::optional<std::int64_t> integer(std::string_view name, std::int64_t least, std::int64_t most);
  std::optional<double> number(std::string_view name, double least, double most);
  // A string or a list of them, at most `most` of at most `longest` bytes.
  std::vector<std::string> texts(std::string_view name, std::size_t most, std::size_t longest);
  // A list of token ids in [0, vocab).
  std::vector<std::int32_t> ids(std::string_view name, std::size_t most, std::int64_t vocab);

  // Members that nothing has asked for: the request means something that is not done.
  std::vector<std::string> unread() const;

 private:
  const Json& object_;
  std::set<std::string, std::less<>> read_;
};

std::int32_t token_id(const Json& value, std::string_view name, std::int64_t vocab);

}  // namespace nibble::server
