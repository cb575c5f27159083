// The stack machine that pickles of torch.save are programs for: instructions that dictionaries of
// tensors need, and no function but those that PyTorch rebuilds tensors with. Internal to
// torch_pickle.cc, whose header names the sources.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "checkpoint/container/torch_pickle.h"

namespace nibble {

// Values live in one list and name each other by their place in it, so that a value that holds
// itself, which a pickle can make, is no danger.
using PickleRef = std::uint32_t;

enum class PickleKind {
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kTuple,  // and lists
  kDict,   // items: key, value, key, value, ...
  kGlobal,
  kStorage,
  kTensor,
};

struct PickleValue {
  PickleKind kind = PickleKind::kNone;
  std::int64_t number = 0;       // kBool, kInt; kStorage: its elements; kTensor: its index
  std::string text;              // kText; kGlobal: "module.name"; kStorage: its key
  std::vector<PickleRef> items;  // kTuple, kDict
  std::optional<DType> dtype;    // kStorage, and kGlobal where it names one
};

class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> program, std::string_view what)
      : program_(program), what_(what) {}

  // The value on top of the stack when the program stops.
  PickleRef run() {
    while (!stopped_) step();
    return top();
  }
  const PickleValue& value(PickleRef ref) const { return values_[ref]; }
  const PickledTensor& tensor(const PickleValue& value) const {
    return tensors_[static_cast<std::size_t>(value.number)];
  }

 private:
  void step();
  bool step_constant(std::uint8_t code);
  bool step_container(std::uint8_t code);
  bool step_memo(std::uint8_t code);
  bool step_object(std::uint8_t code);

  void push_global(const std::string& name);
  void persistent_storage();
  void reduce();
  void build_storage_view(const std::vector<PickleRef>& items, bool has_dtype);

  [[noreturn]] void corrupt(std::string_view reason) const {
    fail(ErrorKind::kCorrupt, "{}: {} at byte {} of the pickle", what_, reason, at_);
  }

  std::span<const std::byte> take(std::uint64_t count) {
    if (count > program_.size() - at_) corrupt("an instruction runs over the end");
    const auto bytes = program_.subspan(at_, count);
    at_ += count;
    return bytes;
  }
  template <class T>
  T take_number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string take_text(std::uint64_t count) {
    const auto bytes = take(count);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::string take_line() {
    const auto rest = program_.subspan(at_);
    const auto end = std::ranges::find(rest, std::byte{'\n'});
    if (end == rest.end()) corrupt("a line without end");
    std::string line = take_text(static_cast<std::uint64_t>(end - rest.begin()));
    take(1);
    return line;
  }
  // Little-endian two's complement of up to eight bytes.
  std::int64_t take_long(std::uint64_t count) {
    if (count > 8) corrupt("an integer of more than 64 bits");
    std::int64_t value = 0;
    const auto bytes = take(count);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      value |= static_cast<std::int64_t>(std::to_integer<std::uint64_t>(bytes[i]) << (8 * i));
    }
    const bool negative = count > 0 && count < 8 && (bytes.back() & std::byte{0x80}) != std::byte{};
    return negative ? value - (std::int64_t{1} << (8 * count)) : value;
  }

  void push(PickleValue value) {
    constexpr std::size_t kMaxValues = 4'000'000;
    if (values_.size() == kMaxValues) corrupt("more values than any model has");
    values_.push_back(std::move(value));
    stack_.push_back(static_cast<PickleRef>(values_.size() - 1));
  }
  void push_number(PickleKind kind, std::int64_t number) {
    PickleValue value;
    value.kind = kind;
    value.number = number;
    push(std::move(value));
  }
  void push_text(std::string text) {
    PickleValue value;
    value.kind = PickleKind::kText;
    value.text = std::move(text);
    push(std::move(value));
  }
  void push_items(PickleKind kind, std::vector<PickleRef> items) {
    PickleValue value;
    value.kind = kind;
    value.items = std::move(items);
    push(std::move(value));
  }

  PickleRef top() const {
    if (stack_.size() <= floor()) corrupt("nothing on the stack");
    return stack_.back();
  }
  PickleRef pop() {
    const PickleRef ref = top();
    stack_.pop_back();
    return ref;
  }
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  // Everything above the last mark, which goes too.
  std::vector<PickleRef> pop_mark() {
    if (marks_.empty()) corrupt("no mark on the stack");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<PickleRef> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }
  void push_tuple_of(std::size_t count) {
    std::vector<PickleRef> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    push_items(PickleKind::kTuple, std::move(items));
  }
  void append(PickleKind kind, const std::vector<PickleRef>& items) {
    PickleValue& container = values_[top()];
    if (container.kind != kind) corrupt("items for what holds none");
    if (kind == PickleKind::kDict && items.size() % 2 != 0) corrupt("a key without a value");
    container.items.insert(container.items.end(), items.begin(), items.end());
  }

  std::int64_t integer(PickleRef ref) const {
    const PickleValue& v = values_[ref];
    if (v.kind != PickleKind::kInt || v.number < 0) corrupt("no size where a tensor needs one");
    return v.number;
  }
  std::vector<std::int64_t> integers(PickleRef ref) const {
    const PickleValue& v = values_[ref];
    if (v.kind != PickleKind::kTuple || v.items.size() > kMaxPickledRank) {
      corrupt("no sizes where a tensor needs them");
    }
    std::vector<std::int64_t> result;
    for (const PickleRef item : v.items) result.push_back(integer(item));
    return result;
  }

  std::span<const std::byte> program_;
  std::string_view what_;
  std::uint64_t at_ = 0;
  bool stopped_ = false;
  std::vector<PickleValue> values_;
  std::vector<PickledTensor> tensors_;  // without names
  std::vector<PickleRef> stack_;
  std::vector<std::size_t> marks_;  // heights of the stack
  std::map<std::uint32_t, PickleRef> memo_;
};

}  // namespace nibble
