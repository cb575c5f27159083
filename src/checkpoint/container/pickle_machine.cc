#include "checkpoint/container/pickle_machine.h"

#include <array>

namespace nibble {
namespace {

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

}  // namespace

void PickleMachine::step() {
  const auto code = take_number<std::uint8_t>();
  if (step_constant(code) || step_container(code) || step_memo(code) || step_object(code)) return;
  fail(
      ErrorKind::kUnsupported,
      "{}: instruction 0x{:02x} at byte {} of the pickle, which no file of tensors needs; save the "
      "model's state_dict alone, or as safetensors",
      what_, code, at_ - 1);
}

bool PickleMachine::step_constant(std::uint8_t code) {
  switch (code) {
    case 'N':
      push({});
      return true;
    case 0x88:
      push_number(PickleKind::kBool, 1);
      return true;
    case 0x89:
      push_number(PickleKind::kBool, 0);
      return true;
    case 'J':
      push_number(PickleKind::kInt, take_number<std::int32_t>());
      return true;
    case 'K':
      push_number(PickleKind::kInt, take_number<std::uint8_t>());
      return true;
    case 'M':
      push_number(PickleKind::kInt, take_number<std::uint16_t>());
      return true;
    case 0x8a:
      push_number(PickleKind::kInt, take_long(take_number<std::uint8_t>()));
      return true;
    case 'G':  // a float, big-endian: of no use for tensors
      take(8);
      push_number(PickleKind::kFloat, 0);
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

bool PickleMachine::step_container(std::uint8_t code) {
  switch (code) {
    case '(':
      marks_.push_back(stack_.size());
      return true;
    case '}':
      push_items(PickleKind::kDict, {});
      return true;
    case ']':
    case ')':
      push_items(PickleKind::kTuple, {});
      return true;
    case 't':
    case 'l':
      push_items(PickleKind::kTuple, pop_mark());
      return true;
    case 0x85:
    case 0x86:
    case 0x87:
      push_tuple_of(code - 0x84u);
      return true;
    case 'a': {
      const PickleRef item = pop();
      append(PickleKind::kTuple, {item});
      return true;
    }
    case 'e':
      append(PickleKind::kTuple, pop_mark());
      return true;
    case 's': {
      const PickleRef value = pop();
      const PickleRef key = pop();
      append(PickleKind::kDict, {key, value});
      return true;
    }
    case 'u':
      append(PickleKind::kDict, pop_mark());
      return true;
    case '0':
      pop();
      return true;
    default:
      return false;
  }
}

bool PickleMachine::step_memo(std::uint8_t code) {
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

bool PickleMachine::step_object(std::uint8_t code) {
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
      const PickleRef name = pop(), module = pop();
      if (values_[name].kind != PickleKind::kText || values_[module].kind != PickleKind::kText) {
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
      if (values_[top()].kind != PickleKind::kDict) corrupt("attributes of what is no dictionary");
      return true;
    }
    case '.':
      stopped_ = true;
      return true;
    default:
      return false;
  }
}

void PickleMachine::push_global(const std::string& name) {
  PickleValue value;
  value.kind = PickleKind::kGlobal;
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
void PickleMachine::persistent_storage() {
  const PickleValue& id = values_[pop()];
  constexpr std::size_t kFields = 5;
  if (id.kind != PickleKind::kTuple || id.items.size() != kFields)
    corrupt("no identity of a storage");
  const PickleValue& type = values_[id.items[1]];
  const PickleValue& key = values_[id.items[2]];
  if (values_[id.items[0]].text != "storage" || type.kind != PickleKind::kGlobal || !type.dtype ||
      key.kind != PickleKind::kText) {
    corrupt("no identity of a storage");
  }
  PickleValue storage;
  storage.kind = PickleKind::kStorage;
  storage.text = key.text;
  storage.number = integer(id.items[4]);
  storage.dtype = type.dtype;
  push(std::move(storage));
}

void PickleMachine::reduce() {
  constexpr std::size_t kMaxArguments = 16;
  const PickleRef arguments = pop();
  const PickleValue function = values_[pop()];
  if (function.kind != PickleKind::kGlobal || values_[arguments].kind != PickleKind::kTuple ||
      values_[arguments].items.size() > kMaxArguments) {
    corrupt("a call of what is no function");
  }
  const std::vector<PickleRef> items = values_[arguments].items;
  if (function.text == "collections.OrderedDict") {
    if (!items.empty()) corrupt("arguments of an OrderedDict");
    push_items(PickleKind::kDict, {});
  } else if (function.text == "torch.Size" && items.size() == 1) {
    stack_.push_back(items[0]);
  } else if (function.text.starts_with("torch._utils._rebuild_tensor_v")) {
    build_storage_view(items, function.text.ends_with("3"));
  } else if (function.text.starts_with("torch._utils._rebuild_parameter") && !items.empty() &&
             values_[items[0]].kind == PickleKind::kTensor) {
    stack_.push_back(items[0]);
  } else {
    corrupt("a call with wrong arguments");
  }
}

// (storage, offset, sizes, strides, requires_grad, hooks, dtype where version 3 has one, ...).
// Taken over at once: the program may change its lists later.
void PickleMachine::build_storage_view(const std::vector<PickleRef>& items, bool has_dtype) {
  if (items.size() < (has_dtype ? 7u : 4u) || values_[items[0]].kind != PickleKind::kStorage) {
    corrupt("a tensor without a storage");
  }
  const PickleValue& storage = values_[items[0]];
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
  push_number(PickleKind::kTensor, static_cast<std::int64_t>(tensors_.size()) - 1);
}

}  // namespace nibble
