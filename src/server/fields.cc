#include "server/fields.h"

#include <cmath>

#include "server/api_error.h"

namespace nibble::server {

Fields::Fields(const Json& object) : object_(object) {
  if (!object.is_object()) throw ApiError(400, "the request's body must be a JSON object");
}

const Json* Fields::find(std::string_view name) {
  const auto at = object_.find(name);
  if (at == object_.end()) return nullptr;
  read_.emplace(name);
  return at->is_null() ? nullptr : &*at;
}

std::optional<std::string> Fields::text(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse_member(std::string(name), "must be a string");
  return value->get<std::string>();
}

std::optional<bool> Fields::boolean(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) refuse_member(std::string(name), "must be true or false");
  return value->get<bool>();
}

std::optional<double> Fields::number(std::string_view name, double least, double most) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) refuse_member(std::string(name), "must be a number");
  const double number = value->get<double>();
  if (!(number >= least && number <= most)) {
    refuse_member(std::string(name),
                  fmt::format("{} is outside the range of {} to {}", number, least, most));
  }
  return number;
}

std::optional<std::int64_t> Fields::integer(std::string_view name, std::int64_t least,
                                            std::int64_t most) {
  const auto complain = [&] {
    refuse_member(std::string(name),
                  fmt::format("must be a whole number of {} to {}", least, most));
  };
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) complain();
  // A float that is whole and exact is a number of its own; larger ones have no exact meaning.
  constexpr double kExact = 9007199254740992.0;
  std::int64_t number = 0;
  if (value->is_number_unsigned()) {
    const auto wide = value->get<std::uint64_t>();
    if (wide > static_cast<std::uint64_t>(INT64_MAX)) complain();
    number = static_cast<std::int64_t>(wide);
  } else if (value->is_number_integer()) {
    number = value->get<std::int64_t>();
  } else {
    const double wide = value->get<double>();
    if (!(std::abs(wide) <= kExact) || wide != std::floor(wide)) complain();
    number = static_cast<std::int64_t>(wide);
  }
  if (number < least || number > most) complain();
  return number;
}

std::vector<std::string> Fields::texts(std::string_view name, std::size_t most,
                                       std::size_t longest) {
  const Json* value = find(name);
  if (value == nullptr) return {};
  const auto complain = [&] {
    refuse_member(std::string(name),
                  fmt::format("must be a string or a list of at most {} strings, none empty, each "
                              "of at most {} bytes",
                              most, longest));
  };
  std::vector<std::string> texts;
  const auto take = [&](const Json& one) {
    if (!one.is_string()) complain();
    texts.push_back(one.get<std::string>());
    if (texts.back().empty() || texts.back().size() > longest) complain();
  };
  if (value->is_array()) {
    if (value->size() > most) complain();
    for (const Json& one : *value) take(one);
  } else {
    take(*value);
  }
  return texts;
}

std::int32_t token_id(const Json& value, std::string_view name, std::int64_t vocab) {
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<std::uint64_t>() < (1ULL << 31)) &&
                    value.get<std::int64_t>() >= 0 && value.get<std::int64_t>() < vocab;
  if (!fits) {
    refuse_member(std::string(name),
                  fmt::format("{} is not a token of this model's {}", value.dump(), vocab));
  }
  return value.get<std::int32_t>();
}

std::vector<std::int32_t> Fields::ids(std::string_view name, std::size_t most, std::int64_t vocab) {
  const Json* value = find(name);
  if (value == nullptr) return {};
  if (!value->is_array() || value->size() > most) {
    refuse_member(std::string(name), fmt::format("must be a list of at most {} tokens", most));
  }
  std::vector<std::int32_t> ids;
  for (const Json& one : *value) ids.push_back(token_id(one, name, vocab));
  return ids;
}

std::vector<std::string> Fields::unread() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : object_.items()) {
    if (!read_.contains(name) && !value.is_null()) names.push_back(name);
  }
  return names;
}

}  // namespace nibble::server
