#include "checkpoint/container/torch_pickle.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "base/error.h"

namespace nibble {
namespace {

// Values live in one list and name each other by their place in it, so that a value that holds
// itself, which a pickle can make, is no danger.
using Ref = std::uint32_t;

enum class Kind {
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

struct Value {
  Kind kind = Kind::kNone;
  std::int64_t number = 0;     // kBool, kInt; kStorage: its elements; kTensor: its index
  std::string text;            // kText; kGlobal: "module.name"; kStorage: its key
  std::vector<Ref> items;      // kTuple, kDict
  std::optional<DType> dtype;  // kStorage, and kGlobal where it names one
};

constexpr std::array<std::pair<std::string_view, DType>, 14> kStorages = {{
    {"torch.FloatStorage", DType::kF32},
    {"torch.HalfStorage", DType::kF16},
    {"torch.BFloat16Storage", DType::kBF16},
    {"torch.DoubleStorage", DType::kF64},
    {"torch.LongStorage", DType::kI64},
    {"torch.IntStorage", DType::kI32},
    {"torch.ShortStorage", DType::kI16},
    {"torch.CharStorage", DType::kI8},
    {"torch.ByteStorage", DType::kU8},
    {"torch.BoolStorage", DType::kBool},
    {"torch.UntypedStorage", DType::kU8},
    {"torch.storage.UntypedStorage", DType::kU8},
    {"torch.Float8_e4m3fnStorage", DType::kF8E4M3},
    {"torch.Float8_e5m2Storage", DType::kF8E5M2},
}};

constexpr std::array<std::pair<std::string_view, DType>, 15> kDTypes = {{
    {"torch.float32", DType::kF32},
    {"torch.float16", DType::kF16},
    {"torch.bfloat16", DType::kBF16},
    {"torch.float64", DType::kF64},
    {"torch.int64", DType::kI64},
    {"torch.int32", DType::kI32},
    {"torch.int16", DType::kI16},
    {"torch.int8", DType::kI8},
    {"torch.uint8", DType::kU8},
    {"torch.uint16", DType::kU16},
    {"torch.uint32", DType::kU32},
    {"torch.bool", DType::kBool},
    {"torch.float8_e4m3fn", DType::kF8E4M3},
    {"torch.float8_e5m2", DType::kF8E5M2},
    {"torch.float8_e8m0fnu", DType::kF8E8M0},
}};

// Names that build a value here; torch.Size and OrderedDict give what they are given.
constexpr std::array<std::string_view, 6> kFunctions = {
    "collections.OrderedDict",         "torch.Size",
    "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
};

template <std::size_t N>
std::optional<DType> find_in(const std::array<std::pair<std::string_view, DType>, N>& table,
                             std::string_view name) {
  const auto found = std::ranges::find(table, name, [](const auto& row) { return row.first; });
  return found == table.end() ? std::nullopt : std::optional(found->second);
}

class Machine {
 public:
  Machine(std::span<const std::byte> program, std::string_view what)
      : program_(program), what_(what) {}

  // The value on top of the stack when the program stops.
  Ref run() {
    while (!stopped_) step();
    return top();
  }
  const Value& value(Ref ref) const { return values_[ref]; }
  const PickledTensor& tensor(const Value& value) const {
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
  void build_storage_view(const std::vector<Ref>& items, bool has_dtype);

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

  void push(Value value) {
    constexpr std::size_t kMaxValues = 4'000'000;
    if (values_.size() == kMaxValues) corrupt("more values than any model has");
    values_.push_back(std::move(value));
    stack_.push_back(static_cast<Ref>(values_.size() - 1));
  }
  void push_number(Kind kind, std::int64_t number) {
    Value value;
    value.kind = kind;
    value.number = number;
    push(std::move(value));
  }
  void push_text(std::string text) {
    Value value;
    value.kind = Kind::kText;
    value.text = std::move(text);
    push(std::move(value));
  }
  void push_items(Kind kind, std::vector<Ref> items) {
    Value value;
    value.kind = kind;
    value.items = std::move(items);
    push(std::move(value));
  }

  Ref top() const {
    if (stack_.size() <= floor()) corrupt("nothing on the stack");
    return stack_.back();
  }
  Ref pop() {
    const Ref ref = top();
    stack_.pop_back();
    return ref;
  }
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  // Everything above the last mark, which goes too.
  std::vector<Ref> pop_mark() {
    if (marks_.empty()) corrupt("no mark on the stack");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Ref> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }
  void push_tuple_of(std::size_t count) {
    std::vector<Ref> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    push_items(Kind::kTuple, std::move(items));
  }
  void append(Kind kind, const std::vector<Ref>& items) {
    Value& container = values_[top()];
    if (container.kind != kind) corrupt("items for what holds none");
    if (kind == Kind::kDict && items.size() % 2 != 0) corrupt("a key without a value");
    container.items.insert(container.items.end(), items.begin(), items.end());
  }

  std::int64_t integer(Ref ref) const {
    const Value& v = values_[ref];
    if (v.kind != Kind::kInt || v.number < 0) corrupt("no size where a tensor needs one");
    return v.number;
  }
  std::vector<std::int64_t> integers(Ref ref) const {
    const Value& v = values_[ref];
    if (v.kind != Kind::kTuple || v.items.size() > kMaxPickledRank) {
      corrupt("no sizes where a tensor needs them");
    }
    std::vector<std::int64_t> result;
    for (const Ref item : v.items) result.push_back(integer(item));
    return result;
  }

  std::span<const std::byte> program_;
  std::string_view what_;
  std::uint64_t at_ = 0;
  bool stopped_ = false;
  std::vector<Value> values_;
  std::vector<PickledTensor> tensors_;  // without names
  std::vector<Ref> stack_;
  std::vector<std::size_t> marks_;  // heights of the stack
  std::map<std::uint32_t, Ref> memo_;
};

void Machine::step() {
  const auto code = take_number<std::uint8_t>();
  if (step_constant(code) || step_container(code) || step_memo(code) || step_object(code)) return;
  fail(
      ErrorKind::kUnsupported,
      "{}: instruction 0x{:02x} at byte {} of the pickle, which no file of tensors needs; save the "
      "model's state_dict alone, or as safetensors",
      what_, code, at_ - 1);
}

bool Machine::step_constant(std::uint8_t code) {
  switch (code) {
    case 'N':
      push({});
      return true;
    case 0x88:
      push_number(Kind::kBool, 1);
      return true;
    case 0x89:
      push_number(Kind::kBool, 0);
      return true;
    case 'J':
      push_number(Kind::kInt, take_number<std::int32_t>());
      return true;
    case 'K':
      push_number(Kind::kInt, take_number<std::uint8_t>());
      return true;
    case 'M':
      push_number(Kind::kInt, take_number<std::uint16_t>());
      return true;
    case 0x8a:
      push_number(Kind::kInt, take_long(take_number<std::uint8_t>()));
      return true;
    case 'G':  // a float, big-endian: of no use for tensors
      take(8);
      push_number(Kind::kFloat, 0);
      return true;
    case 'X':
      push_text(take_text(take_number<std::uint32_t>()));
      return true;
    case 0x8c:
    case 'U':
      push_text(take_text(take_number<std::uint8_t>()));
      return true;
    case 'T':
      push_text(take_text(take_number<std::uint32_t>()));
      return true;
    default:
      return false;
  }
}

bool Machine::step_container(std::uint8_t code) {
  switch (code) {
    case '(':
      marks_.push_back(stack_.size());
      return true;
    case '}':
      push_items(Kind::kDict, {});
      return true;
    case ']':
    case ')':
      push_items(Kind::kTuple, {});
      return true;
    case 't':
    case 'l':
      push_items(Kind::kTuple, pop_mark());
      return true;
    case 0x85:
    case 0x86:
    case 0x87:
      push_tuple_of(code - 0x84u);
      return true;
    case 'a': {
      const Ref item = pop();
      append(Kind::kTuple, {item});
      return true;
    }
    case 'e':
      append(Kind::kTuple, pop_mark());
      return true;
    case 's': {
      const Ref value = pop();
      const Ref key = pop();
      append(Kind::kDict, {key, value});
      return true;
    }
    case 'u':
      append(Kind::kDict, pop_mark());
      return true;
    case '0':
      pop();
      return true;
    default:
      return false;
  }
}

bool Machine::step_memo(std::uint8_t code) {
  const auto recall = [&](std::uint32_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) corrupt("a value that was never kept");
    stack_.push_back(found->second);
  };
  switch (code) {
    case 'q':
      memo_[take_number<std::uint8_t>()] = top();
      return true;
    case 'r':
      memo_[take_number<std::uint32_t>()] = top();
      return true;
    case 0x94:
      memo_[static_cast<std::uint32_t>(memo_.size())] = top();
      return true;
    case 'h':
      recall(take_number<std::uint8_t>());
      return true;
    case 'j':
      recall(take_number<std::uint32_t>());
      return true;
    default:
      return false;
  }
}

bool Machine::step_object(std::uint8_t code) {
  switch (code) {
    case 0x80: {
      const auto protocol = take_number<std::uint8_t>();
      if (protocol < 2 || protocol > 5) corrupt("an unknown protocol");
      return true;
    }
    case 0x95:  // a frame: how much to read at once
      take(8);
      return true;
    case 'c': {
      const std::string module = take_line();
      push_global(module + "." + take_line());
      return true;
    }
    case 0x93: {
      const Ref name = pop(), module = pop();
      if (values_[name].kind != Kind::kText || values_[module].kind != Kind::kText) {
        corrupt("a name that is no text");
      }
      push_global(values_[module].text + "." + values_[name].text);
      return true;
    }
    case 'Q':
      persistent_storage();
      return true;
    case 'R':
      reduce();
      return true;
    case 'b': {  // attributes: of an OrderedDict only its metadata, which nobody here reads
      pop();
      if (values_[top()].kind != Kind::kDict) corrupt("attributes of what is no dictionary");
      return true;
    }
    case '.':
      stopped_ = true;
      return true;
    default:
      return false;
  }
}

void Machine::push_global(const std::string& name) {
  Value value;
  value.kind = Kind::kGlobal;
  value.dtype = find_in(kStorages, name);
  if (!value.dtype) value.dtype = find_in(kDTypes, name);
  if (!value.dtype && std::ranges::find(kFunctions, name) == kFunctions.end()) {
    fail(ErrorKind::kUnsupported,
         "{}: the pickle names '{}', which no file of tensors needs and nibble does not run; save "
         "the model's state_dict alone, or as safetensors",
         what_, name);
  }
  value.text = name;
  push(std::move(value));
}

// ("storage", type, key, device, elements)
void Machine::persistent_storage() {
  const Value& id = values_[pop()];
  constexpr std::size_t kFields = 5;
  if (id.kind != Kind::kTuple || id.items.size() != kFields) corrupt("no identity of a storage");
  const Value& type = values_[id.items[1]];
  const Value& key = values_[id.items[2]];
  if (values_[id.items[0]].text != "storage" || type.kind != Kind::kGlobal || !type.dtype ||
      key.kind != Kind::kText) {
    corrupt("no identity of a storage");
  }
  Value storage;
  storage.kind = Kind::kStorage;
  storage.text = key.text;
  storage.number = integer(id.items[4]);
  storage.dtype = type.dtype;
  push(std::move(storage));
}

void Machine::reduce() {
  constexpr std::size_t kMaxArguments = 16;
  const Ref arguments = pop();
  const Value function = values_[pop()];
  if (function.kind != Kind::kGlobal || values_[arguments].kind != Kind::kTuple ||
      values_[arguments].items.size() > kMaxArguments) {
    corrupt("a call of what is no function");
  }
  const std::vector<Ref> items = values_[arguments].items;
  if (function.text == "collections.OrderedDict") {
    if (!items.empty()) corrupt("arguments of an OrderedDict");
    push_items(Kind::kDict, {});
  } else if (function.text == "torch.Size" && items.size() == 1) {
    stack_.push_back(items[0]);
  } else if (function.text.starts_with("torch._utils._rebuild_tensor_v")) {
    build_storage_view(items, function.text.ends_with("3"));
  } else if (function.text.starts_with("torch._utils._rebuild_parameter") && !items.empty() &&
             values_[items[0]].kind == Kind::kTensor) {
    stack_.push_back(items[0]);
  } else {
    corrupt("a call with wrong arguments");
  }
}

// (storage, offset, sizes, strides, requires_grad, hooks, dtype where version 3 has one, ...).
// Taken over at once: the program may change its lists later.
void Machine::build_storage_view(const std::vector<Ref>& items, bool has_dtype) {
  if (items.size() < (has_dtype ? 7u : 4u) || values_[items[0]].kind != Kind::kStorage) {
    corrupt("a tensor without a storage");
  }
  const Value& storage = values_[items[0]];
  const std::optional<DType> dtype = values_[items[has_dtype ? 6 : 0]].dtype;
  if (!dtype) corrupt("a tensor of no type");
  PickledTensor tensor;
  tensor.dtype = *dtype;
  tensor.storage = storage.text;
  // A storage of another type counts in its own elements.
  std::int64_t bytes = 0;
  const auto width = static_cast<std::int64_t>(dtype_size(*storage.dtype));
  if (__builtin_mul_overflow(storage.number, width, &bytes)) corrupt("a storage beyond any memory");
  tensor.storage_elements = bytes / static_cast<std::int64_t>(dtype_size(tensor.dtype));
  tensor.offset = integer(items[1]);
  tensor.shape = integers(items[2]);
  tensor.strides = integers(items[3]);
  if (tensor.shape.size() != tensor.strides.size()) corrupt("a tensor of two ranks");
  tensors_.push_back(std::move(tensor));
  push_number(Kind::kTensor, static_cast<std::int64_t>(tensors_.size()) - 1);
}

// The elements that a view reaches lie in its storage, and are no more than that holds.
void check_view(const PickledTensor& tensor, std::string_view what) {
  const auto refuse = [&](std::string_view reason) {
    fail(ErrorKind::kCorrupt, "{}: tensor '{}' of {} {}", what, tensor.name,
         to_string(tensor.shape), reason);
  };
  std::int64_t count = 1, last = tensor.offset;
  bool overflow = false;
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    overflow |= __builtin_mul_overflow(count, tensor.shape[i], &count);
    std::int64_t reach = 0;
    const std::int64_t steps = std::max<std::int64_t>(tensor.shape[i] - 1, 0);
    overflow |= __builtin_mul_overflow(steps, tensor.strides[i], &reach);
    overflow |= __builtin_add_overflow(last, reach, &last);
  }
  if (overflow) refuse("is larger than any memory");
  if (count > 0 && last >= tensor.storage_elements) refuse("reaches over the end of its storage");
  if (count > tensor.storage_elements) refuse("has more elements than its storage");
}

const Value& require_dict(const Machine& machine, Ref root, std::string_view what) {
  const Value& dict = machine.value(root);
  if (dict.kind != Kind::kDict) {
    fail(ErrorKind::kUnsupported, "{}: it holds no dictionary of tensors; save a state_dict", what);
  }
  return dict;
}

std::vector<PickledTensor> tensors_of(const Machine& machine, const Value& dict) {
  std::vector<PickledTensor> tensors;
  for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    const Value& key = machine.value(dict.items[i]);
    const Value& value = machine.value(dict.items[i + 1]);
    if (key.kind != Kind::kText || value.kind != Kind::kTensor) continue;
    tensors.push_back(machine.tensor(value));
    tensors.back().name = key.text;
  }
  return tensors;
}

// Where training programs keep the state of a model among other things.
std::vector<PickledTensor> nested_tensors(const Machine& machine, const Value& dict) {
  constexpr std::array<std::string_view, 5> kKeys = {"state_dict", "model_state_dict", "model",
                                                     "module", "weights"};
  for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    const Value& key = machine.value(dict.items[i]);
    const Value& value = machine.value(dict.items[i + 1]);
    if (key.kind != Kind::kText || value.kind != Kind::kDict) continue;
    if (std::ranges::find(kKeys, key.text) == kKeys.end()) continue;
    return tensors_of(machine, value);
  }
  return {};
}

}  // namespace

std::vector<PickledTensor> read_torch_pickle(std::span<const std::byte> pickle,
                                             std::string_view what) {
  if (pickle.size() > kMaxPickleBytes) {
    fail(ErrorKind::kCorrupt, "{}: a pickle of {} bytes, more than the limit of {}", what,
         pickle.size(), kMaxPickleBytes);
  }
  Machine machine(pickle, what);
  const Value& dict = require_dict(machine, machine.run(), what);
  std::vector<PickledTensor> tensors = tensors_of(machine, dict);
  if (tensors.empty()) tensors = nested_tensors(machine, dict);
  std::ranges::sort(tensors, {}, &PickledTensor::name);
  const auto twin = std::ranges::adjacent_find(tensors, {}, &PickledTensor::name);
  if (twin != tensors.end()) {
    fail(ErrorKind::kCorrupt, "{}: duplicate tensor '{}'", what, twin->name);
  }
  for (const PickledTensor& tensor : tensors) check_view(tensor, what);
  return tensors;
}

}  // namespace nibble
