// AWQ: a Hugging Face directory with quant_method "awq", in the layouts of AutoAWQ and llm-awq.
// Sources: AutoAWQ, awq/modules/linear/{gemm,gemv,gemv_fast}.py and awq/utils/packing_utils.py;
// llm-awq, awq/quantize/qmodule.py.
//
//              M.qweight              M.qzeros                     M.scales
//   gemm       I32 [in, out / 8]      I32 [groups, out / 8]        F16 [groups, out]
//   gemv       I32 [out, in / 8]      I32 [out, padded / 8]        F16 [out, padded]
//   gemv_fast  I16 [out / 4, in]      F16 [padded, out]: -scale * zero   F16 [padded, out]
//
// Codes have 4 bits. gemm holds 8 outputs in a word, in the order 0 2 4 6 1 3 5 7; gemv the inputs
// in order, which is the canonical plane; gemv_fast interleaves 4 outputs, see fast_position().
#include <algorithm>
#include <cmath>
#include <cstring>

#include "checkpoint/affine_parts.h"
#include "checkpoint/hf_directory.h"
#include "checkpoint/json_members.h"
#include "checkpoint/pack_awq.h"
#include "checkpoint/pack_quantized.h"
#include "formats/affine.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

enum class AwqLayout { kGemm, kGemv, kGemvFast };

struct AwqConfig {
  std::int64_t group = 0;  // 0: a whole row
  AwqLayout layout = AwqLayout::kGemm;
};

AwqConfig parse_config(const Json& json, const std::string& what) {
  const std::int64_t bits = int_member(json, "bits", int_member(json, "w_bit", 4, what), what);
  if (bits != 4)
    fail(ErrorKind::kUnsupported, "{}: AWQ weights of {} bits; only 4 exist", what, bits);
  AwqConfig config;
  const std::int64_t group =
      int_member(json, "group_size", int_member(json, "q_group_size", 128, what), what);
  config.group = group > 0 ? group : 0;
  std::string version = text_member(json, "version", "gemm", what);
  std::ranges::transform(version, version.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  if (version == "gemv") {
    config.layout = AwqLayout::kGemv;
  } else if (version == "gemv_fast" || version == "llm-awq") {
    config.layout = AwqLayout::kGemvFast;
  } else if (version != "gemm") {
    fail(ErrorKind::kUnsupported, "{}: AWQ version '{}'; gemm, gemv and gemv_fast are supported",
         what, version);
  }
  return config;
}

// Where gemv_fast keeps code (row, col): the index of its 16-bit word and its nibble there. Within
// 32 columns, pairs of columns 8 apart come together, then even before odd; 64 columns of 4 rows
// make 64 words.
struct FastPosition {
  std::int64_t word;
  int nibble;
};
FastPosition fast_position(std::int64_t row, std::int64_t col, std::int64_t cols) {
  const std::int64_t k = col % 32;
  const std::int64_t moved = col / 32 * 32 + k % 8 / 2 * 8 + k % 2 * 4 + k / 8;
  const std::int64_t flat = row % 4 * 64 + moved % 64;
  return {row / 4 * cols + moved / 64 * 64 + flat / 4, static_cast<int>(flat % 4)};
}

class AwqModules final : public QuantizedModules {
 public:
  explicit AwqModules(std::shared_ptr<const HfDirectory> directory)
      : directory_(std::move(directory)),
        config_(parse_config(quantization_config_of(directory_->path), directory_->path.string())) {
  }

  bool has(const std::string& module) const override { return files().has(module + ".qweight"); }

  QuantTensor read(const std::string& module) const override {
    AffineParts parts;
    switch (config_.layout) {
      case AwqLayout::kGemm:
        parts = read_gemm(module);
        break;
      case AwqLayout::kGemv:
        parts = read_gemv(module);
        break;
      case AwqLayout::kGemvFast:
        parts = read_gemv_fast(module);
    }
    return assemble(std::move(parts), "module '" + module + "'");
  }

 private:
  const TensorFiles& files() const { return directory_->files; }

  Tensor matrix(const std::string& name, DType dtype) const {
    return read_matrix(files(), name, dtype, ErrorKind::kUnsupported);
  }

  AffineParts make_parts(std::int64_t rows, std::int64_t cols) const {
    AffineParts parts;
    parts.rows = rows;
    parts.cols = cols;
    parts.group = config_.group <= cols ? config_.group : 0;
    return parts;
  }

  // Scales or zero points [groups, out], padded with rows or not, as [out, groups].
  Tensor first_groups(const Tensor& stored, const AffineParts& parts,
                      const std::string& name) const {
    const std::int64_t groups = parts.group == 0 ? 1 : (parts.cols + parts.group - 1) / parts.group;
    if (stored.dim(0) < groups) {
      fail(ErrorKind::kCorrupt, "tensor '{}': {} groups where {} are needed", name, stored.dim(0),
           groups);
    }
    return transposed(stored.rows(0, groups));
  }

  AffineParts read_gemm(const std::string& module) const {
    const Tensor words = matrix(module + ".qweight", DType::kI32);
    AffineParts parts = make_parts(words.dim(1) * kAwqPerWord, words.dim(0));
    parts.codes = awq_gemm_codes(words);
    parts.scales = transposed(matrix(module + ".scales", DType::kF16));
    parts.zeros = awq_gemm_zeros(matrix(module + ".qzeros", DType::kI32));
    return parts;
  }

  AffineParts read_gemv(const std::string& module) const {
    const Tensor words = matrix(module + ".qweight", DType::kI32);
    AffineParts parts = make_parts(words.dim(0), words.dim(1) * kAwqPerWord);
    parts.codes = words;
    const Tensor scales = matrix(module + ".scales", DType::kF16);
    parts.scales = first_groups(transposed(scales), parts, module + ".scales");
    const Tensor packed = matrix(module + ".qzeros", DType::kI32);
    if (packed.dim(0) != parts.rows || packed.dim(1) * kAwqPerWord < parts.scales.dim(1)) {
      fail(ErrorKind::kCorrupt, "tensor '{}.qzeros': shape {} beside scales {}", module,
           to_string(packed.shape()), to_string(scales.shape()));
    }
    parts.zeros = Tensor::allocate(DType::kU8, parts.scales.shape());
    const std::int64_t groups = parts.scales.dim(1);
    auto* zeros = parts.zeros.mutable_data<std::uint8_t>();
    for (std::int64_t r = 0; r < packed.dim(0); ++r) {
      unpack_codes(packed.rows(r, r + 1).bytes().data(), 4, 0, groups, zeros + r * groups);
    }
    return parts;
  }

  AffineParts read_gemv_fast(const std::string& module) const {
    const Tensor words = matrix(module + ".qweight", DType::kI16);
    AffineParts parts = make_parts(words.dim(0) * 4, words.dim(1));
    if (parts.cols % 64 != 0) {
      fail(ErrorKind::kCorrupt, "tensor '{}.qweight': {} columns, no multiple of 64", module,
           parts.cols);
    }
    parts.codes = fast_codes(words, parts);
    parts.scales = first_groups(matrix(module + ".scales", DType::kF16), parts, module + ".scales");
    const std::string name =
        module + (files().has(module + ".scaled_zeros") ? ".scaled_zeros" : ".qzeros");
    parts.zeros =
        fast_zeros(first_groups(matrix(name, DType::kF16), parts, name), parts.scales, name);
    return parts;
  }

  static Tensor fast_codes(const Tensor& words, const AffineParts& parts) {
    Tensor codes = Tensor::allocate(DType::kI32, {parts.rows, parts.cols / kAwqPerWord});
    auto* out = codes.mutable_data<std::uint32_t>();
    std::vector<std::uint8_t> row(static_cast<std::size_t>(parts.cols));
    for (std::int64_t r = 0; r < parts.rows; ++r) {
      for (std::int64_t c = 0; c < parts.cols; ++c) {
        const FastPosition at = fast_position(r, c, parts.cols);
        std::uint16_t word = 0;
        std::memcpy(&word, words.bytes().data() + at.word * 2, 2);
        row[static_cast<std::size_t>(c)] = static_cast<std::uint8_t>(word >> (4 * at.nibble) & 15);
      }
      pack_codes(row, 4, out + r * (parts.cols / kAwqPerWord));
    }
    return codes;
  }

  // Zero points were integers before they were scaled, and rounded to F16 after.
  static Tensor fast_zeros(const Tensor& scaled, const Tensor& scales, const std::string& name) {
    if (scaled.shape() != scales.shape()) {
      fail(ErrorKind::kCorrupt, "tensor '{}': shape {} beside scales {}", name,
           to_string(scaled.shape()), to_string(scales.shape()));
    }
    Tensor zeros = Tensor::allocate(DType::kU8, scaled.shape());
    auto* out = zeros.mutable_data<std::uint8_t>();
    for (std::int64_t i = 0; i < scaled.elements(); ++i) {
      float value = 0, scale = 0;
      to_float(scaled, i, 1, &value);
      to_float(scales, i, 1, &scale);
      const float zero = scale == 0 ? 0 : std::nearbyint(-value / scale);
      constexpr float kHalfUlp = 1.0f / 1024;  // of F16, relative
      if (!(zero >= 0 && zero <= 15) ||
          !(std::abs(zero * scale + value) <= kHalfUlp * std::abs(value))) {
        fail(ErrorKind::kUnsupported, "tensor '{}': {} is no zero point times the scale {}", name,
             value, scale);
      }
      out[i] = static_cast<std::uint8_t>(zero);
    }
    return zeros;
  }

  std::shared_ptr<const HfDirectory> directory_;
  AwqConfig config_;
};

}  // namespace

bool probe_awq(const std::filesystem::path& path) { return quant_method_of(path) == "awq"; }

std::unique_ptr<Checkpoint> open_awq(const std::filesystem::path& path) {
  auto directory = open_hf_directory(path);
  auto modules = std::make_unique<AwqModules>(directory);
  return make_hf_checkpoint("awq", std::move(directory), std::move(modules));
}

}  // namespace nibble
