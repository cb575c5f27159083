#include "checkpoint/container/torch_pickle.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "checkpoint/container/pickle_machine.h"

namespace nibble {
namespace {

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

const PickleValue& require_dict(const PickleMachine& machine, PickleRef root,
                                std::string_view what) {
  const PickleValue& dict = machine.value(root);
  if (dict.kind != PickleKind::kDict) {
    fail(ErrorKind::kUnsupported, "{}: it holds no dictionary of tensors; save a state_dict", what);
  }
  return dict;
}

std::vector<PickledTensor> tensors_of(const PickleMachine& machine, const PickleValue& dict) {
  std::vector<PickledTensor> tensors;
  for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    const PickleValue& key = machine.value(dict.items[i]);
    const PickleValue& value = machine.value(dict.items[i + 1]);
    if (key.kind != PickleKind::kText || value.kind != PickleKind::kTensor) continue;
    tensors.push_back(machine.tensor(value));
    tensors.back().name = key.text;
  }
  return tensors;
}

// Where training programs keep the state of a model among other things.
std::vector<PickledTensor> nested_tensors(const PickleMachine& machine, const PickleValue& dict) {
  constexpr std::array<std::string_view, 5> kKeys = {"state_dict", "model_state_dict", "model",
                                                     "module", "weights"};
  for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    const PickleValue& key = machine.value(dict.items[i]);
    const PickleValue& value = machine.value(dict.items[i + 1]);
    if (key.kind != PickleKind::kText || value.kind != PickleKind::kDict) continue;
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
  PickleMachine machine(pickle, what);
  const PickleValue& dict = require_dict(machine, machine.run(), what);
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
