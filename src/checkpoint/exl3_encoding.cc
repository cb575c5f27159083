// Writing EXL3 (conventions/exl3.cc describes the tensors) from two-sided trellises
// (formats/trellis.h).
#include <algorithm>
#include <cstdint>

#include "checkpoint/encoding.h"
#include "checkpoint/hf_directory.h"
#include "formats/exl3_code.h"
#include "formats/trellis.h"

namespace nibble {
namespace {

// Tiles in the order of inputs; the words of each, from its end to its start.
Tensor exl3_tiles(const Tensor& codes, int bits) {
  const std::int64_t words = 8 * bits, outs = codes.dim(0), ins = codes.dim(1) / words;
  Tensor tiles = Tensor::allocate(DType::kI16, {ins, outs, 2 * words});
  auto* to = static_cast<std::byte*>(tiles.address());
  for (std::int64_t in = 0; in < ins; ++in) {
    for (std::int64_t out = 0; out < outs; ++out) {
      const std::byte* tile = codes.bytes().data() + (out * ins + in) * words * 4;
      for (std::int64_t i = words; i-- > 0; to += 4) std::copy_n(tile + 4 * i, 4, to);
    }
  }
  return tiles;
}

Tensor input_signs(std::int64_t cols) {
  std::vector<float> signs;
  for (std::int64_t col = 0; col < cols; ++col) signs.push_back(trellis_sign(col));
  return from_float(signs.data(), DType::kF16, {cols});
}

class Exl3Encoding final : public WeightEncoding {
 public:
  std::string convention() const override { return "exl3"; }

  std::string why_not(const Format& format) const override {
    return format.is_two_sided() ? "" : format.name() + " is no trellis of EXL3 ('trellis4_exl3')";
  }

  std::vector<StoredTensor> plan(const QuantizedModule& m) const override {
    if (!is_head(m.module)) require_linear(m, "EXL3");
    const std::int64_t bits = m.format->descriptor().element.bits;
    return {{m.module + ".trellis",
             DType::kI16,
             {m.cols / kTrellisSide, m.rows / kTrellisSide, kTrellisSide * bits}},
            {m.module + ".suh", DType::kF16, {m.cols}},
            {m.module + ".svh", DType::kF16, {m.rows}},
            {m.module + ".mul1", DType::kI32, {}}};
  }

  std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                     const QuantTensor& weight) const override {
    Tensor multiplier = Tensor::allocate(DType::kI32, {});
    *multiplier.mutable_data<std::uint32_t>() = kExl3Mul1;
    const int bits = weight.format->descriptor().element.bits;
    return {{module + ".trellis", exl3_tiles(weight.planes[0], bits)},
            {module + ".suh", input_signs(weight.cols)},
            {module + ".svh", weight.planes[1].reshaped({weight.rows})},
            {module + ".mul1", std::move(multiplier)}};
  }

  Json quantization_config(const std::vector<QuantizedModule>& modules,
                           const std::vector<std::string>& /*plain*/) const override {
    const MeanBits mean = mean_bits(modules);
    return {{"quant_method", "exl3"},
            {"bits", mean.layers},
            {"head_bits", mean.head},
            {"codebook", "mul1"},
            {"out_scales", "always"}};
  }
};

}  // namespace

const WeightEncoding& exl3_encoding() {
  static const Exl3Encoding encoding;
  return encoding;
}

}  // namespace nibble
