// GPTQ: a Hugging Face directory with quant_method "gptq", of AutoGPTQ, GPTQModel and their kin.
// Source: AutoGPTQ and GPTQModel, quantization/config.py and nn_modules/qlinear.
//
//   M.qweight  I32 [in * bits / 32, out]   codes along the input: a column of words is a row of the
//                                          canonical plane
//   M.qzeros   I32 [groups, out * bits / 32]  zero points along the output; one less in version 1
//   M.scales   F16|BF16 [groups, out]
//   M.g_idx    I32 [in]                    the group of each input
#include <algorithm>

#include "checkpoint/affine_parts.h"
#include "checkpoint/gptq_config.h"
#include "checkpoint/hf_directory.h"
#include "checkpoint/pack_quantized.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

constexpr std::int64_t kWordBits = 32;

class GptqModules final : public QuantizedModules {
 public:
  explicit GptqModules(std::shared_ptr<const HfDirectory> directory)
      : directory_(std::move(directory)),
        config_(quantization_config_of(directory_->path), directory_->path.string()) {}

  bool has(const std::string& module) const override { return files().has(module + ".qweight"); }

  QuantTensor read(const std::string& module) const override {
    const GptqArgs args = config_.args(module);
    const Tensor words = matrix(module + ".qweight");
    AffineParts parts;
    parts.bits = args.bits;
    parts.symmetric = args.symmetric;
    parts.rows = words.dim(1);
    parts.cols = words.dim(0) * kWordBits / args.bits;
    parts.group = args.group <= parts.cols ? args.group : 0;
    parts.codes = transposed(words);
    const Tensor scales = files().tensor(module + ".scales");
    if (scales.shape().size() != 2) {
      fail(ErrorKind::kCorrupt, "tensor '{}.scales': no matrix", module);
    }
    parts.scales = transposed(scales);
    parts.zeros = zeros(module, args, parts.rows);
    parts.group_of_column = group_index(module);
    return assemble(std::move(parts), "module '" + module + "'");
  }

  // Which modules lose their format shows in g_idx alone, which is small.
  std::vector<std::string> notes() const override {
    std::int64_t unordered = 0;
    for (const std::string& name : files().names()) {
      if (!name.ends_with(".g_idx")) continue;
      const std::string module = name.substr(0, name.rfind('.'));
      const GptqArgs args = config_.args(module);
      AffineParts parts;
      parts.group_of_column = group_index(module);
      parts.cols = static_cast<std::int64_t>(parts.group_of_column.size());
      parts.group = args.group <= parts.cols ? args.group : 0;
      unordered += in_order(parts) ? 0 : 1;
    }
    return unordered_note(directory_->path.string(), unordered);
  }

 private:
  const TensorFiles& files() const { return directory_->files; }

  Tensor matrix(const std::string& name) const {
    Tensor tensor = files().tensor(name);
    if (tensor.dtype() != DType::kI32 || tensor.shape().size() != 2 || tensor.elements() == 0) {
      fail(ErrorKind::kUnsupported, "tensor '{}': {} {} where packed words (I32) are needed", name,
           to_string(tensor.dtype()), to_string(tensor.shape()));
    }
    return tensor;
  }

  // U8 [rows, groups]. Version 1 stores one less, in the width of the field.
  Tensor zeros(const std::string& module, const GptqArgs& args, std::int64_t rows) const {
    const std::string name = module + ".qzeros";
    const Tensor packed = transposed(matrix(name));  // [words of the rows, groups]
    if (packed.dim(0) != packed_words(rows, args.bits, Packing::kDense)) {
      fail(ErrorKind::kCorrupt, "tensor '{}': {} words cannot hold {} zero points of {} bits", name,
           packed.dim(0), rows, args.bits);
    }
    Tensor result = unpack_zeros(packed, rows, args.bits, Packing::kDense);
    const auto middle = static_cast<std::byte>(1 << (args.bits - 1));
    // Some writers put version 2 into symmetric files that say version 1. Such zero points would
    // all be off the middle by one, which no symmetric file is.
    const bool mislabelled =
        args.symmetric &&
        std::ranges::all_of(result.bytes(), [&](std::byte z) { return z == middle; });
    if (config_.version() == 2 || mislabelled) return result;
    auto* values = result.mutable_data<std::uint8_t>();
    const int mask = (1 << args.bits) - 1;
    for (std::int64_t i = 0; i < result.elements(); ++i) {
      values[i] = static_cast<std::uint8_t>((values[i] + 1) & mask);
    }
    return result;
  }

  std::vector<std::int32_t> group_index(const std::string& module) const {
    return read_indices(files(), module + ".g_idx");
  }

  std::shared_ptr<const HfDirectory> directory_;
  GptqConfig config_;
};

}  // namespace

bool probe_gptq(const std::filesystem::path& path) { return quant_method_of(path) == "gptq"; }

std::unique_ptr<Checkpoint> open_gptq(const std::filesystem::path& path) {
  auto directory = open_hf_directory(path);
  auto modules = std::make_unique<GptqModules>(directory);
  return make_hf_checkpoint("gptq", std::move(directory), std::move(modules));
}

}  // namespace nibble
