// EXL2 of ExLlamaV2: a Hugging Face directory with quant_method "exl2".
// Source: ExLlamaV2, conversion/adaptivegptq.py (pack) and linear.py.
//
//   M.q_weight     I32 [words, out]   the canonical codes plane (mixed_format.h), transposed
//   M.q_scale      I32 [G, out / 8]   codes of scales, 4 bits each, along the output
//   M.q_scale_max  F16 [G]
//   M.q_groups     I16 [2 G]          of each group its bits and its first row of q_weight
//   M.q_invperm    I32 [in]           the place of each input
#include <algorithm>
#include <cstring>

#include "checkpoint/exl2_layout.h"
#include "checkpoint/hf_directory.h"
#include "formats/mixed_format.h"
#include "formats/registry.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

class Exl2Modules final : public QuantizedModules {
 public:
  explicit Exl2Modules(std::shared_ptr<const HfDirectory> directory)
      : directory_(std::move(directory)) {}

  bool has(const std::string& module) const override { return files().has(module + ".q_weight"); }

  QuantTensor read(const std::string& module) const override {
    const std::string what = "module '" + module + "'";
    const Tensor words = typed(module + ".q_weight", DType::kI32, 2);
    const Tensor places = typed(module + ".q_invperm", DType::kI32, 1);
    const std::int64_t rows = words.dim(1), cols = places.dim(0);
    QuantTensor weight;
    weight.format = make_format(exl2_descriptor(groups(module), words.dim(0), cols, what));
    weight.rows = rows;
    weight.cols = cols;
    const std::string reason = weight.format->why_not(rows, cols);
    if (!reason.empty()) fail(ErrorKind::kCorrupt, "{}: {}", what, reason);
    const std::int64_t group_count = mixed_groups(mixed_runs(*weight.format, cols));
    weight.planes = {
        transposed(words),
        exl2_scales(typed(module + ".q_scale", DType::kI32, 2), rows, group_count, what),
        typed(module + ".q_scale_max", DType::kF16, 1), places};
    constexpr std::int64_t kPadding = 32;
    weight.rows = without_padding(directory_->config, module, rows, kPadding);
    for (std::size_t i = 0; i < 2; ++i) weight.planes[i] = weight.planes[i].rows(0, weight.rows);
    validate(weight);
    check_mixed_planes(weight, what);
    return weight;
  }

 private:
  const TensorFiles& files() const { return directory_->files; }

  Tensor typed(const std::string& name, DType dtype, std::size_t rank) const {
    Tensor tensor = files().tensor(name);
    if (tensor.dtype() != dtype || tensor.shape().size() != rank || tensor.elements() == 0) {
      fail(ErrorKind::kCorrupt, "tensor '{}': {} {} where {} of {} dimensions is needed", name,
           to_string(tensor.dtype()), to_string(tensor.shape()), to_string(dtype), rank);
    }
    return tensor;
  }

  std::vector<Exl2Group> groups(const std::string& module) const {
    const Tensor stored = typed(module + ".q_groups", DType::kI16, 1);
    std::vector<std::int16_t> pairs(static_cast<std::size_t>(stored.elements()));
    std::memcpy(pairs.data(), stored.bytes().data(), stored.byte_size());
    std::vector<Exl2Group> groups;
    for (std::size_t i = 0; i + 1 < pairs.size(); i += 2) {
      groups.push_back({pairs[i], static_cast<std::uint16_t>(pairs[i + 1])});
    }
    return groups;
  }

  std::shared_ptr<const HfDirectory> directory_;
};

}  // namespace

bool probe_exl2(const std::filesystem::path& path) { return quant_method_of(path) == "exl2"; }

std::unique_ptr<Checkpoint> open_exl2(const std::filesystem::path& path) {
  auto directory = open_hf_directory(path);
  auto modules = std::make_unique<Exl2Modules>(directory);
  return make_hf_checkpoint("exl2", std::move(directory), std::move(modules));
}

}  // namespace nibble
