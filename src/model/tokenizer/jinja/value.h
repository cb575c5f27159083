// Values of Jinja programs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"

namespace nibble::jinja {

struct Value;
struct Statement;
using List = std::vector<Value>;

// Keeps the order of insertion; conversations have few keys.
struct Dict {
  std::vector<std::pair<std::string, Value>> entries;
  bool is_namespace = false;  // namespaces alone can be changed
  const Value* find(std::string_view key) const;
  void set(std::string_view key, Value value);
};

struct Undefined {
  std::string name;  // for messages
};
struct Function {
  std::string builtin;               // or:
  const Statement* macro = nullptr;  // of the tree that is being rendered
};

// Lists and dictionaries are shared and, but for namespaces, immutable.
struct Value {
  std::variant<Undefined, std::nullptr_t, bool, std::int64_t, double, std::string,
               std::shared_ptr<const List>, std::shared_ptr<Dict>, Function>
      data;

  Value() : data(Undefined{}) {}
  template <class T>
  requires(!std::is_same_v<std::decay_t<T>, Value>) Value(T&& value)
      : data(std::forward<T>(value)) {}  // NOLINT: conversion is the point
  static Value list(List items) { return std::make_shared<const List>(std::move(items)); }
  static Value undefined(std::string name) { return Undefined{std::move(name)}; }

  template <class T>
  const T* as() const {
    return std::get_if<T>(&data);
  }
  const List* list() const {
    const auto* p = as<std::shared_ptr<const List>>();
    return p == nullptr ? nullptr : p->get();
  }
  Dict* dict() const {
    const auto* p = as<std::shared_ptr<Dict>>();
    return p == nullptr ? nullptr : p->get();
  }
  const std::string* text() const { return as<std::string>(); }
  bool is_undefined() const { return as<Undefined>() != nullptr; }
  bool is_none() const { return as<std::nullptr_t>() != nullptr; }
  bool is_number() const { return as<std::int64_t>() != nullptr || as<double>() != nullptr; }
  double number() const;  // of a number or boolean
};

Value from_json(const Json& json);
Value from_json(const nlohmann::ordered_json& json);

bool truthy(const Value& value);
bool equal(const Value& a, const Value& b);
const char* type_name(const Value& value);

// As Python's str() and repr(). kCorrupt for values that nest deeper than 100.
std::string to_text(const Value& value);
// As Python's json.dumps(ensure_ascii=False); indent < 0: on one line.
std::string to_json(const Value& value, int indent);

// Characters of a text, as texts.
List characters(std::string_view text);

}  // namespace nibble::jinja
