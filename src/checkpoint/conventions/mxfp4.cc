// quant_method "mxfp4", as GPT-OSS is published: the experts of a layer in E2M1 under E8M0.
// Source: transformers, integrations/mxfp4.py.
//
//   M_blocks  U8 [experts, rows, cols / 32, 16]  two codes a byte, the first in the low half
//   M_scales  U8 [experts, rows, cols / 32]      2^(value - 127)
//
// M ("model.layers.0.mlp.experts.gate_up_proj") is one matrix [experts * rows, cols] here, which
// model/fused_experts.h divides.
#include "checkpoint/hf_directory.h"
#include "checkpoint/scaled_floats.h"

namespace nibble {
namespace {

constexpr const char* kQuantMethod = "mxfp4";
constexpr std::int64_t kGroup = 32;

class Mxfp4Modules final : public QuantizedModules {
 public:
  explicit Mxfp4Modules(std::shared_ptr<const HfDirectory> directory)
      : directory_(std::move(directory)) {}

  bool has(const std::string& module) const override {
    return files().has(module + "_blocks") && files().has(module + "_scales");
  }

  QuantTensor read(const std::string& module) const override {
    const Tensor blocks = files().tensor(module + "_blocks");
    const Tensor scales = files().tensor(module + "_scales");
    const Shape& shape = blocks.shape();
    if (blocks.dtype() != DType::kU8 || shape.size() < 3 || shape.back() != kGroup / 2 ||
        blocks.elements() == 0) {
      fail(ErrorKind::kCorrupt, "tensor '{}_blocks': {} {} is no U8 [..., cols / 32, 16]", module,
           to_string(blocks.dtype()), to_string(shape));
    }
    const std::int64_t groups = shape[shape.size() - 2];
    const std::int64_t rows = blocks.elements() / (groups * shape.back());
    if (scales.dtype() != DType::kU8 || scales.elements() != rows * groups) {
      fail(ErrorKind::kCorrupt, "tensor '{}_scales': {} {} beside blocks {}", module,
           to_string(scales.dtype()), to_string(scales.shape()), to_string(shape));
    }
    ScaledFloats parts;
    parts.codes = blocks.reshaped({rows, groups * shape.back()});
    parts.scales = scales.reshaped({rows, groups});
    parts.granularity = Granularity::kGroup;
    parts.group = kGroup;
    return assemble(parts, "module '" + module + "'");
  }

 private:
  const TensorFiles& files() const { return directory_->files; }

  std::shared_ptr<const HfDirectory> directory_;
};

}  // namespace

bool probe_mxfp4(const std::filesystem::path& path) {
  return quant_method_of(path) == kQuantMethod;
}

std::unique_ptr<Checkpoint> open_mxfp4(const std::filesystem::path& path) {
  auto directory = open_hf_directory(path);
  auto modules = std::make_unique<Mxfp4Modules>(directory);
  return make_hf_checkpoint(kQuantMethod, std::move(directory), std::move(modules));
}

}  // namespace nibble
