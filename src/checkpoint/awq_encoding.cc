// Writing the gemm layout of AWQ (conventions/awq.cc describes the tensors).
#include "checkpoint/affine_parts.h"
#include "checkpoint/encoding.h"
#include "checkpoint/pack_awq.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

class AwqEncoding final : public WeightEncoding {
 public:
  std::string convention() const override { return "awq"; }

  std::string why_not(const Format& format) const override {
    const WeightDescriptor& d = format.descriptor();
    if (!format.is_affine() || d.element.bits != 4) return "AWQ has integers of 4 bits";
    if (d.scheme.symmetric) return "AWQ's gemm layout has zero points";
    if (d.scheme.granularity == Granularity::kBlock) return "AWQ has no blocks of rows";
    if (d.scheme.granularity == Granularity::kTensor) return "AWQ has a scale a row at least";
    return d.scheme.scale_type == DType::kF16 ? "" : "AWQ has scales in F16";
  }

  std::vector<StoredTensor> plan(const QuantizedModule& m) const override {
    if (!m.linear || m.rows % kAwqPerWord != 0) {
      fail(ErrorKind::kUnsupported,
           "module '{}': AWQ stores linear layers whose outputs are a multiple of 8, not {}",
           m.module, m.rows);
    }
    const std::int64_t groups = m.format->planes(m.rows, m.cols)[1].shape[1];
    const std::int64_t words = m.rows / kAwqPerWord;
    return {{m.module + ".qweight", DType::kI32, {m.cols, words}},
            {m.module + ".qzeros", DType::kI32, {groups, words}},
            {m.module + ".scales", DType::kF16, {groups, m.rows}}};
  }

  std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                     const QuantTensor& weight) const override {
    return {{module + ".qweight", pack_awq_gemm_codes(weight.planes[0], weight.cols)},
            {module + ".qzeros", pack_awq_gemm_zeros(weight.planes[2])},
            {module + ".scales", transposed(weight.planes[1])}};
  }

  // The convention knows one group size for a whole model.
  Json quantization_config(const std::vector<QuantizedModule>& modules,
                           const std::vector<std::string>& plain) const override {
    NIBBLE_CHECK(!modules.empty());
    require_one_format(modules, "AWQ");
    const Scheme& scheme = modules.front().format->descriptor().scheme;
    return {{"quant_method", "awq"},
            {"version", "gemm"},
            {"bits", 4},
            {"group_size", scheme.granularity == Granularity::kGroup ? scheme.group : -1},
            {"zero_point", true},
            {"modules_to_not_convert", plain}};
  }
};

}  // namespace

const WeightEncoding& awq_encoding() {
  static const AwqEncoding encoding;
  return encoding;
}

}  // namespace nibble
