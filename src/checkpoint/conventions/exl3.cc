// EXL3 of ExLlamaV3: a Hugging Face directory with quant_method "exl3".
// Source: ExLlamaV3, doc/exl3.md and modules/quant/exl3.py.
//
//   M.trellis    I16 [in / 16, out / 16, 16 bits]   (checkpoint/exl3_tiles.h)
//   M.suh, .svh  F16 [in], [out]                    factors of both sides; in old files
//   M.su, .sv    I16 [in / 16], [out / 16]          signs, a bit that is set being -1
//   M.mcg, .mul1 I32, one number                    the codebook; neither: the first
//
// Both sides of a matrix are multiplied by Hadamard matrices, so rows cannot be decoded one by one:
// weights are decoded when they are loaded.
#include <cstring>
#include <utility>

#include "checkpoint/exl3_tiles.h"
#include "checkpoint/hf_directory.h"

namespace nibble {
namespace {

constexpr std::int64_t kTileSide = 16, kHadamard = 128;

class Exl3Modules final : public QuantizedModules {
 public:
  explicit Exl3Modules(std::shared_ptr<const HfDirectory> directory)
      : directory_(std::move(directory)) {}

  bool has(const std::string& module) const override { return files().has(module + ".trellis"); }

  QuantTensor read(const std::string& module) const override {
    Exl3Weight weight;
    weight.trellis = typed(module + ".trellis", DType::kI16);
    const Shape& shape = weight.trellis.shape();
    if (shape.size() != 3 || shape[0] * kTileSide % kHadamard != 0 ||
        shape[1] * kTileSide % kHadamard != 0) {
      fail(ErrorKind::kCorrupt,
           "tensor '{}.trellis': {} is no [in / 16, out / 16, 16 bits] of 128s", module,
           to_string(shape));
    }
    if (shape[2] % kTileSide != 0 || shape[2] / kTileSide > 8) {
      fail(ErrorKind::kUnsupported, "tensor '{}.trellis': {} bits a weight; 1 to 8 are read",
           module, static_cast<double>(shape[2]) / static_cast<double>(kTileSide));
    }
    weight.in = factors(module, "su", shape[0] * kTileSide);
    weight.out = factors(module, "sv", shape[1] * kTileSide);
    weight.codebook = codebook(module);
    const Tensor values = decode_exl3(weight, "module '" + module + "'");
    const std::int64_t rows = without_padding(directory_->config, module, values.dim(0), kHadamard);
    return dense(values.rows(0, rows));
  }

  std::vector<std::string> notes() const override {
    return {directory_->path.string() +
            ": trellis codes of EXL3 are decoded when they are loaded, and take the memory of "
            "16-bit weights"};
  }

 private:
  const TensorFiles& files() const { return directory_->files; }

  Tensor typed(const std::string& name, DType dtype) const {
    Tensor tensor = files().tensor(name);
    if (tensor.dtype() != dtype || tensor.elements() == 0) {
      fail(ErrorKind::kCorrupt, "tensor '{}': {} {} where {} is needed", name,
           to_string(tensor.dtype()), to_string(tensor.shape()), to_string(dtype));
    }
    return tensor;
  }

  // "suh" [count], or "su" [count / 16].
  Tensor factors(const std::string& module, const std::string& name, std::int64_t count) const {
    const std::string signs = module + "." + name;
    const bool packed = !files().has(signs + "h");
    const Tensor stored = packed ? typed(signs, DType::kI16) : typed(signs + "h", DType::kF16);
    const std::int64_t wanted = packed ? count / kTileSide : count;
    if (stored.elements() != wanted) {
      fail(ErrorKind::kCorrupt, "tensor '{}': {} numbers where {} are needed", signs,
           stored.elements(), wanted);
    }
    if (!packed) return stored.reshaped({count});
    std::vector<float> values;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto eight = std::to_integer<unsigned>(stored.bytes()[static_cast<std::size_t>(i / 8)]);
      values.push_back((eight >> i % 8 & 1) != 0 ? -1.0f : 1.0f);
    }
    return from_float(values.data(), DType::kF16, {count});
  }

  Exl3Codebook codebook(const std::string& module) const {
    struct Marker {
      const char* name;
      std::uint32_t value;
      Exl3Codebook codebook;
    };
    constexpr Marker kMarkers[] = {{".mcg", kExl3Mcg, Exl3Codebook::kMcg},
                                   {".mul1", kExl3Mul1, Exl3Codebook::kMul1}};
    for (const auto& [name, value, codebook] : kMarkers) {
      const std::vector<std::int32_t> stored = read_indices(files(), module + name);
      if (stored.empty()) continue;
      if (stored.size() != 1 || static_cast<std::uint32_t>(stored[0]) != value) {
        fail(ErrorKind::kUnsupported, "tensor '{}{}': another multiplier than {:#x}", module, name,
             value);
      }
      return codebook;
    }
    return Exl3Codebook::kThreeInstructions;
  }

  std::shared_ptr<const HfDirectory> directory_;
};

}  // namespace

bool probe_exl3(const std::filesystem::path& path) { return quant_method_of(path) == "exl3"; }

std::unique_ptr<Checkpoint> open_exl3(const std::filesystem::path& path) {
  auto directory = open_hf_directory(path);
  auto modules = std::make_unique<Exl3Modules>(directory);
  return make_hf_checkpoint("exl3", std::move(directory), std::move(modules));
}

}  // namespace nibble
