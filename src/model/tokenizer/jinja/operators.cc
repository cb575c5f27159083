#include "model/tokenizer/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/tokenizer/jinja/builtins.h"

namespace nibble::jinja {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{16} << 20;
constexpr std::size_t kMaxItems = 1'000'000;

[[noreturn]] void mismatch(const std::string& op, const Value& left, const Value& right) {
  fail(ErrorKind::kCorrupt, "chat template: {} {} {}", type_name(left), op, type_name(right));
}

bool numeric(const Value& v) { return v.is_number() || v.as<bool>() != nullptr; }
bool integral(const Value& v) { return numeric(v) && v.as<double>() == nullptr; }

std::int64_t integer(const Value& v) {
  const bool* b = v.as<bool>();
  return b != nullptr ? (*b ? 1 : 0) : *v.as<std::int64_t>();
}

Value checked_text(std::string text) {
  if (text.size() > kMaxBytes) fail(ErrorKind::kCorrupt, "chat template: text is too large");
  return text;
}

Value integer_arithmetic(const std::string& op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else {
    if (b == 0) fail(ErrorKind::kCorrupt, "chat template: division by zero");
    if (b == -1) {  // the one quotient that can overflow
      overflow = __builtin_sub_overflow(std::int64_t{0}, a, &result);
      if (op == "%") return std::int64_t{0};
    } else {
      const bool round_down = a % b != 0 && (a < 0) != (b < 0);
      result = op == "//" ? a / b - (round_down ? 1 : 0) : a % b + (round_down ? b : 0);
    }
  }
  if (overflow) fail(ErrorKind::kCorrupt, "chat template: integer overflow");
  return result;
}

Value arithmetic(const std::string& op, const Value& left, const Value& right) {
  if (integral(left) && integral(right) && op != "/" && op != "**") {
    return integer_arithmetic(op, integer(left), integer(right));
  }
  const double a = left.number();
  const double b = right.number();
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") {
    const double power = std::pow(a, b);
    const bool whole = integral(left) && integral(right) && b >= 0 && std::abs(power) < 0x1p53;
    return whole ? Value(static_cast<std::int64_t>(power)) : Value(power);
  }
  if (b == 0) fail(ErrorKind::kCorrupt, "chat template: division by zero");
  if (op == "/") return a / b;
  if (op == "//") return std::floor(a / b);
  return a - std::floor(a / b) * b;
}

bool contains(const Value& container, const Value& wanted) {
  if (const std::string* text = container.text()) {
    if (wanted.text() == nullptr) mismatch("in", wanted, container);
    return text->find(*wanted.text()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    return wanted.text() != nullptr && dict->find(*wanted.text()) != nullptr;
  }
  const List items = items_of(container);
  return std::any_of(items.begin(), items.end(),
                     [&](const Value& item) { return equal(item, wanted); });
}

// -1, 0 or 1.
int compare(const std::string& op, const Value& left, const Value& right) {
  if (numeric(left) && numeric(right)) {
    return left.number() < right.number() ? -1 : left.number() > right.number() ? 1 : 0;
  }
  if (left.text() == nullptr || right.text() == nullptr) mismatch(op, left, right);
  const int order = left.text()->compare(*right.text());
  return order < 0 ? -1 : order > 0 ? 1 : 0;
}

Value repeated(const std::string& text, std::int64_t count) {
  std::string out;
  if (count > 0 && static_cast<double>(text.size()) * static_cast<double>(count) > kMaxBytes) {
    fail(ErrorKind::kCorrupt, "chat template: text is too large");
  }
  for (std::int64_t i = 0; i < count && !text.empty(); ++i) out += text;
  return out;
}

Value concatenated(const List& left, const List& right) {
  if (left.size() + right.size() > kMaxItems) {
    fail(ErrorKind::kCorrupt, "chat template: list is too long");
  }
  List out = left;
  out.insert(out.end(), right.begin(), right.end());
  return Value::list(std::move(out));
}

std::int64_t bound(const Value& value, std::int64_t fallback) {
  if (value.is_none() || value.is_undefined()) return fallback;
  if (!integral(value)) fail(ErrorKind::kCorrupt, "chat template: slice by {}", type_name(value));
  return integer(value);
}

}  // namespace

Value apply_operator(const std::string& op, const Value& left, const Value& right) {
  if (op == "==") return equal(left, right);
  if (op == "!=") return !equal(left, right);
  if (op == "in") return contains(right, left);
  if (op == "not in") return !contains(right, left);
  if (op == "~") return checked_text(to_text(left) + to_text(right));
  if (op == "<") return compare(op, left, right) < 0;
  if (op == ">") return compare(op, left, right) > 0;
  if (op == "<=") return compare(op, left, right) <= 0;
  if (op == ">=") return compare(op, left, right) >= 0;
  if (numeric(left) && numeric(right)) return arithmetic(op, left, right);
  if (op == "+") {
    if (left.text() != nullptr && right.text() != nullptr) {
      return checked_text(*left.text() + *right.text());
    }
    if (left.list() != nullptr && right.list() != nullptr) {
      return concatenated(*left.list(), *right.list());
    }
  }
  if (op == "*" && left.text() != nullptr && integral(right)) {
    return repeated(*left.text(), integer(right));
  }
  mismatch(op, left, right);
}

Value item(const Value& value, const Value& index) {
  if (index.text() != nullptr) return attribute(value, *index.text());
  if (!integral(index) || (value.list() == nullptr && value.text() == nullptr)) {
    if (value.is_undefined()) return attribute(value, to_text(index));
    return Value::undefined("item");
  }
  const List items = value.list() != nullptr ? *value.list() : characters(*value.text());
  const auto size = static_cast<std::int64_t>(items.size());
  std::int64_t i = integer(index);
  if (i < 0) i += size;
  if (i < 0 || i >= size) return Value::undefined("item");
  return items[static_cast<std::size_t>(i)];
}

Value slice(const Value& value, const Value& start, const Value& stop, const Value& step) {
  if (value.list() == nullptr && value.text() == nullptr) {
    fail(ErrorKind::kCorrupt, "chat template: slice of {}", type_name(value));
  }
  const List items = value.list() != nullptr ? *value.list() : characters(*value.text());
  const auto size = static_cast<std::int64_t>(items.size());
  const std::int64_t by = bound(step, 1);
  if (by == 0) fail(ErrorKind::kCorrupt, "chat template: slice step 0");
  const std::int64_t lowest = by > 0 ? 0 : -1;
  const std::int64_t highest = by > 0 ? size : size - 1;
  const auto clamped = [&](const Value& v, std::int64_t fallback) {
    if (v.is_none() || v.is_undefined()) return fallback;
    const std::int64_t i = bound(v, 0);
    return std::clamp(i < 0 ? i + size : i, lowest, highest);
  };
  std::int64_t i = clamped(start, by > 0 ? lowest : highest);
  const std::int64_t end = clamped(stop, by > 0 ? highest : lowest);
  List out;
  while (by > 0 ? i < end : i > end) {
    out.push_back(items[static_cast<std::size_t>(i)]);
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  if (value.list() != nullptr) return Value::list(std::move(out));
  std::string text;
  for (const Value& c : out) text += *c.text();
  return text;
}

}  // namespace nibble::jinja
