// Writing the bitsandbytes convention (conventions/bnb.cc describes the tensors).
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "checkpoint/bnb_state.h"
#include "checkpoint/byte_codes.h"
#include "checkpoint/encoding.h"
#include "formats/codebook.h"

namespace nibble {
namespace {

constexpr std::int64_t kSmallestBlock = 32, kLargestBlock = 4096;
constexpr const char* kWhatThereIs =
    "bitsandbytes has nf4 and fp4 in blocks of 32 to 4096, and symmetric 8-bit integers with an "
    "F32 "
    "scale a row";

bool is_int8(const Format& format) { return format.is_affine(); }

BnbState state_of(const Format& format, std::int64_t rows, std::int64_t cols) {
  const WeightDescriptor& d = format.descriptor();
  BnbState state;
  state.map = d.element.codebook;
  state.rows = rows;
  state.cols = cols;
  state.block = d.scheme.group;
  state.dtype = DType::kF32;  // what the library decodes to: any other would round
  state.nested = d.scheme.second_level == SecondLevel::kDynamic;
  return state;
}

std::string state_name(const std::string& module, const BnbState& state) {
  return module + ".weight.quant_state.bitsandbytes__" +
         (state.map == Codebook::kNf4 ? "nf4" : "fp4");
}

Tensor bytes_tensor(const std::string& text) {
  Tensor tensor = Tensor::allocate(DType::kU8, {static_cast<std::int64_t>(text.size())});
  std::memcpy(tensor.address(), text.data(), text.size());
  return tensor;
}

Tensor values_tensor(const CodeTable& table) {
  return from_float(table.values().data(), DType::kF32,
                    {static_cast<std::int64_t>(table.values().size())});
}

// The row maximum that gives the scale when a reader divides it by 127; there is none for some
// scales, and then the nearest is taken, which a comparison of values finds.
float row_maximum(float scale) {
  const float near = scale * kBnbInt8Top;
  for (const float candidate : {near, std::nextafter(near, 0.0f),
                                std::nextafter(near, std::numeric_limits<float>::infinity())}) {
    if (candidate / kBnbInt8Top == scale) return candidate;
  }
  return near;
}

class BnbEncoding final : public WeightEncoding {
 public:
  std::string convention() const override { return "bnb"; }

  std::string why_not(const Format& format) const override {
    const WeightDescriptor& d = format.descriptor();
    if (format.is_affine()) {
      const bool fits = d.element.bits == 8 && d.scheme.symmetric &&
                        d.scheme.granularity == Granularity::kChannel &&
                        d.scheme.scale_type == DType::kF32;
      return fits ? "" : kWhatThereIs;
    }
    const bool map =
        d.element.kind == ElementKind::kCodebook &&
        (d.element.codebook == Codebook::kNf4 || d.element.codebook == Codebook::kBnb4);
    const std::int64_t g = d.scheme.group;
    const bool block = d.scheme.granularity == Granularity::kGroup && g >= kSmallestBlock &&
                       g <= kLargestBlock && std::has_single_bit(static_cast<std::uint64_t>(g));
    const bool scales =
        d.scheme.scale_type == DType::kF32 || d.scheme.second_level == SecondLevel::kDynamic;
    return map && block && scales ? "" : kWhatThereIs;
  }

  std::vector<StoredTensor> plan(const QuantizedModule& m) const override {
    require_linear(m, "bitsandbytes");
    const std::string name = m.module + ".weight";
    if (is_int8(*m.format)) {
      return {{name, DType::kI8, {m.rows, m.cols}},
              {m.module + ".SCB", DType::kF32, {m.rows}},
              {m.module + ".weight_format", DType::kU8, {}}};
    }
    const BnbState state = state_of(*m.format, m.rows, m.cols);
    const std::int64_t blocks = m.rows * m.cols / state.block;
    std::vector<StoredTensor> tensors = {
        {name, DType::kU8, {m.rows * m.cols / 2, 1}},
        {name + ".absmax", state.nested ? DType::kU8 : DType::kF32, {blocks}},
        {name + ".quant_map", DType::kF32, {kBnbMapSize}},
        {state_name(m.module, state), DType::kU8, {static_cast<std::int64_t>(kBnbStateBytes)}}};
    if (state.nested) {
      const std::int64_t outer = (blocks + kBnbNestedBlock - 1) / kBnbNestedBlock;
      tensors.push_back({name + ".nested_absmax", DType::kF32, {outer}});
      tensors.push_back({name + ".nested_quant_map", DType::kF32, {kBnbNestedMapSize}});
    }
    return tensors;
  }

  std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                     const QuantTensor& weight) const override {
    return is_int8(*weight.format) ? encode_int8(module, weight) : encode_4bit(module, weight);
  }

  // One kind of weights a model, as the library loads them.
  Json quantization_config(const std::vector<QuantizedModule>& modules,
                           const std::vector<std::string>& plain) const override {
    NIBBLE_CHECK(!modules.empty());
    require_one_format(modules, "bitsandbytes");
    const Format& format = *modules.front().format;
    const bool eight = is_int8(format);
    Json config = {{"quant_method", "bitsandbytes"},
                   {"load_in_8bit", eight},
                   {"load_in_4bit", !eight},
                   {"llm_int8_threshold", 6.0},
                   {"llm_int8_has_fp16_weight", false},
                   {"llm_int8_enable_fp32_cpu_offload", false},
                   {"llm_int8_skip_modules", plain}};
    if (eight) return config;
    const BnbState state = state_of(format, 1, 1);
    config["bnb_4bit_quant_type"] = state.map == Codebook::kNf4 ? "nf4" : "fp4";
    config["bnb_4bit_use_double_quant"] = state.nested;
    config["bnb_4bit_compute_dtype"] = "bfloat16";
    config["bnb_4bit_quant_storage"] = "uint8";
    return config;
  }

 private:
  static std::vector<std::pair<std::string, Tensor>> encode_int8(const std::string& module,
                                                                 const QuantTensor& weight) {
    std::vector<float> maxima(static_cast<std::size_t>(weight.rows));
    to_float(weight.planes[1], maxima.data());
    for (float& value : maxima) value = row_maximum(value);
    Tensor order = Tensor::allocate(DType::kU8, {});
    *order.mutable_data<std::uint8_t>() = 0;  // row by row
    return {{module + ".weight", unpack_rows(weight.planes[0], weight.cols, DType::kI8)},
            {module + ".SCB", from_float(maxima.data(), DType::kF32, {weight.rows})},
            {module + ".weight_format", std::move(order)}};
  }

  static std::vector<std::pair<std::string, Tensor>> encode_4bit(const std::string& module,
                                                                 const QuantTensor& weight) {
    BnbState state = state_of(*weight.format, weight.rows, weight.cols);
    const std::string name = module + ".weight";
    const Tensor& scales = weight.planes[1];
    if (state.nested) to_float(weight.planes[3], 0, 1, &state.nested_offset);
    std::vector<std::pair<std::string, Tensor>> tensors;
    tensors.emplace_back(
        name, swap_nibbles(weight.planes[0], DType::kU8, {weight.rows * weight.cols / 2, 1}));
    tensors.emplace_back(name + ".absmax", scales.reshaped({scales.elements()}));
    tensors.emplace_back(name + ".quant_map", values_tensor(table_of(state.map)));
    tensors.emplace_back(state_name(module, state), bytes_tensor(format_bnb_state(state)));
    if (state.nested) {
      const Tensor& outer = weight.planes[2];
      tensors.emplace_back(name + ".nested_absmax", outer.reshaped({outer.elements()}));
      tensors.emplace_back(name + ".nested_quant_map", values_tensor(dynamic_map()));
    }
    return tensors;
  }
};

}  // namespace

const WeightEncoding& bnb_encoding() {
  static const BnbEncoding encoding;
  return encoding;
}

}  // namespace nibble
