// 4-bit GPTQ weights in the order of the Marlin kernel: quant_method "marlin", or "gptq" with
// checkpoint_format "marlin" or is_marlin_format.
// Source: Marlin, marlin/__init__.py (Layer.pack).
//
//   M.B  I32 [in / 16, 2 out]       codes, in tiles of 16 x 16 (checkpoint/marlin_order.h)
//   M.s  F16 [groups, out]          scales, in an order of their own
//
// Symmetric: w = s (code - 8).
#include <cstring>

#include "checkpoint/affine_parts.h"
#include "checkpoint/hf_directory.h"
#include "checkpoint/json_members.h"
#include "checkpoint/marlin_order.h"

namespace nibble {
namespace {

class MarlinModules final : public QuantizedModules {
 public:
  explicit MarlinModules(std::shared_ptr<const HfDirectory> directory)
      : directory_(std::move(directory)) {
    const Json config = quantization_config_of(directory_->path);
    const std::int64_t bits = int_member(config, "bits", 4, directory_->path.string());
    if (bits != 4) {
      fail(ErrorKind::kUnsupported, "{}: Marlin weights of {} bits; 4 are supported",
           directory_->path.string(), bits);
    }
  }

  bool has(const std::string& module) const override { return files().has(module + ".B"); }

  QuantTensor read(const std::string& module) const override {
    const Tensor words = matrix(module + ".B", DType::kI32);
    const Tensor scales = matrix(module + ".s", DType::kF16);
    AffineParts parts;
    parts.rows = words.dim(1) / 2;
    parts.cols = words.dim(0) * kMarlinTile;
    const std::int64_t groups = scales.dim(0);
    if (words.dim(1) % (2 * kMarlinRows) != 0 || scales.dim(1) != parts.rows ||
        parts.cols % groups != 0) {
      fail(ErrorKind::kCorrupt, "module '{}': codes {} beside scales {}", module,
           to_string(words.shape()), to_string(scales.shape()));
    }
    parts.group = groups == 1 ? 0 : parts.cols / groups;
    parts.symmetric = true;
    parts.codes = marlin_codes(words);
    parts.scales = marlin_scales(scales);
    parts.zeros = Tensor::allocate(DType::kU8, {parts.rows, groups});
    std::memset(parts.zeros.address(), 8, parts.zeros.byte_size());
    return assemble(std::move(parts), "module '" + module + "'");
  }

 private:
  const TensorFiles& files() const { return directory_->files; }

  Tensor matrix(const std::string& name, DType dtype) const {
    return read_matrix(files(), name, dtype, ErrorKind::kCorrupt);
  }

  std::shared_ptr<const HfDirectory> directory_;
};

}  // namespace

bool probe_marlin(const std::filesystem::path& path) {
  const std::string method = quant_method_of(path);
  if (method != "gptq") return method == "marlin";
  const Json config = quantization_config_of(path);
  const std::string what = path.string();
  return bool_member(config, "is_marlin_format", false, what) ||
         text_member(config, "checkpoint_format", text_member(config, "format", "", what), what) ==
             "marlin";
}

std::unique_ptr<Checkpoint> open_marlin(const std::filesystem::path& path) {
  auto directory = open_hf_directory(path);
  auto modules = std::make_unique<MarlinModules>(directory);
  return make_hf_checkpoint("marlin", std::move(directory), std::move(modules));
}

}  // namespace nibble
