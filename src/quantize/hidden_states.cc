#include "quantize/hidden_states.h"

namespace nibble {
namespace {

std::size_t values_in(const Tensor& tensor) { return static_cast<std::size_t>(tensor.elements()); }

}  // namespace

void HiddenStates::copy(const HiddenStates& source, std::int64_t from, std::int64_t count,
                        std::int64_t to) {
  const auto bytes = static_cast<std::size_t>(count * width_) * sizeof(float);
  memory_->copy(source.row(from), bytes, row(to));
}

void HiddenStates::save(Journal& journal, const std::string& name) const {
  const Tensor host = memory_->download(tensor_);
  journal.put_floats(name, {host.data<float>(), values_in(host)});
}

void HiddenStates::restore(const Journal& journal, const std::string& name) {
  if (memory_->is_host()) {
    return journal.get_floats(name, {tensor_.mutable_data<float>(), values_in(tensor_)});
  }
  Tensor host = Tensor::allocate(DType::kF32, tensor_.shape());
  journal.get_floats(name, {host.mutable_data<float>(), values_in(host)});
  memory_->copy_in(host.address(), host.byte_size(), tensor_.address());
}

}  // namespace nibble
