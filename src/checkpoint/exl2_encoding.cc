// Writing EXL2 (conventions/exl2.cc describes the tensors).
#include <algorithm>
#include <cstdint>
#include <limits>

#include "checkpoint/encoding.h"
#include "checkpoint/exl2_layout.h"
#include "checkpoint/hf_directory.h"
#include "formats/mixed_format.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

// Zeros behind the last row, so that rows come in 32s.
QuantTensor filled_up(const QuantTensor& weight) {
  const std::int64_t more = exl2_rows(weight.rows) - weight.rows;
  if (more == 0) return weight;
  const std::vector<float> zeros(static_cast<std::size_t>(more * weight.cols));
  const QuantTensor filling = weight.format->encode(zeros.data(), more, weight.cols);
  QuantTensor whole = weight;
  whole.rows += more;
  for (const std::size_t plane : {0, 1}) {
    const Tensor &first = weight.planes[plane], &last = filling.planes[plane];
    Tensor both = Tensor::allocate(first.dtype(), {whole.rows, first.dim(1)});
    auto* out = static_cast<std::byte*>(both.address());
    std::ranges::copy(last.bytes(), std::ranges::copy(first.bytes(), out).out);
    whole.planes[plane] = std::move(both);
  }
  return whole;
}

class Exl2Encoding final : public WeightEncoding {
 public:
  std::string convention() const override { return "exl2"; }

  std::string why_not(const Format& format) const override {
    return format.is_mixed() ? "" : format.name() + " has no groups of EXL2 ('mixed_...')";
  }

  std::vector<StoredTensor> plan(const QuantizedModule& m) const override {
    if (!is_head(m.module)) require_linear(m, "EXL2");
    const std::int64_t rows = exl2_rows(m.rows);
    if (rows != m.rows && !is_head(m.module)) {
      fail(ErrorKind::kUnsupported, "module '{}': {} rows; EXL2 stores all but the head in 32s",
           m.module, m.rows);
    }
    const std::vector<MixedRun> runs = mixed_runs(*m.format, m.cols);
    const std::int64_t groups = mixed_groups(runs), words = mixed_words(runs);
    if (words > std::numeric_limits<std::int16_t>::max()) {
      fail(ErrorKind::kUnsupported, "module '{}': {} words of a column; EXL2 counts them in I16",
           m.module, words);
    }
    return {{m.module + ".q_weight", DType::kI32, {words, rows}},
            {m.module + ".q_scale", DType::kI32, {groups, rows / 8}},
            {m.module + ".q_scale_max", DType::kF16, {groups}},
            {m.module + ".q_groups", DType::kI16, {2 * groups}},
            {m.module + ".q_invperm", DType::kI32, {m.cols}}};
  }

  std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                     const QuantTensor& stored) const override {
    const QuantTensor weight = filled_up(stored);
    const std::vector<Exl2Group> groups = exl2_groups(*weight.format, weight.cols);
    const auto count = static_cast<std::int64_t>(groups.size());
    Tensor pairs = Tensor::allocate(DType::kI16, {2 * count});
    auto* out = pairs.mutable_data<std::int16_t>();
    for (const auto& [bits, word] : groups) {
      *out++ = static_cast<std::int16_t>(bits);
      *out++ = static_cast<std::int16_t>(word);
    }
    return {{module + ".q_weight", transposed(weight.planes[0])},
            {module + ".q_scale", exl2_stored_scales(weight.planes[1], count)},
            {module + ".q_scale_max", weight.planes[2]},
            {module + ".q_groups", std::move(pairs)},
            {module + ".q_invperm", weight.planes[3]}};
  }

  Json quantization_config(const std::vector<QuantizedModule>& modules,
                           const std::vector<std::string>& /*plain*/) const override {
    const MeanBits mean = mean_bits(modules);
    return {{"quant_method", "exl2"}, {"bits", mean.layers}, {"head_bits", mean.head}};
  }
};

}  // namespace

const WeightEncoding& exl2_encoding() {
  static const Exl2Encoding encoding;
  return encoding;
}

}  // namespace nibble
