// bitsandbytes: a Hugging Face directory with quant_method "bitsandbytes".
// Source: bitsandbytes, functional.py (QuantState.as_dict) and nn/modules.py.
//
// 4 bits:  M.weight                U8 (or the same bytes as another type): two codes a byte, the
//                                  first in the high nibble, the matrix flattened
//          M.weight.absmax         F32 [blocks], or U8 [blocks] when it is quantized again
//          M.weight.quant_map      F32 [16]
//          M.weight.nested_absmax, nested_quant_map   of absmax: blocks of 256, 256 values
//          M.weight.quant_state.bitsandbytes__nf4 (__fp4)   U8: JSON
// 8 bits:  M.weight I8 [out, in], M.SCB F32 [out]: weight * SCB / 127
#include <algorithm>
#include <cstring>

#include "checkpoint/bnb_state.h"
#include "checkpoint/byte_codes.h"
#include "checkpoint/hf_directory.h"
#include "formats/codebook.h"
#include "formats/registry.h"

namespace nibble {
namespace {

std::vector<float> floats_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  to_float(tensor, values.data());
  return values;
}

// Where the largest magnitudes of blocks come from.
struct BnbScales {
  Tensor codes;            // these themselves, F32, or where they are quantized again codes of
  std::vector<float> map;  // 256 values,
  Tensor factors;          // times the largest magnitude of a block of them

  // True when they are quantized again with the map that formats of ours have.
  bool is_dynamic() const {
    return !map.empty() && std::ranges::equal(map, dynamic_map().values());
  }
};

std::vector<float> absolute_maxima(const BnbScales& scales, const BnbState& state) {
  if (scales.map.empty()) return floats_of(scales.codes);
  const std::vector<float> factors = floats_of(scales.factors);
  std::vector<float> maxima(static_cast<std::size_t>(scales.codes.elements()));
  for (std::size_t i = 0; i < maxima.size(); ++i) {
    const float value = scales.map[std::to_integer<std::size_t>(scales.codes.bytes()[i])];
    maxima[i] = value * factors[i / kBnbNestedBlock] + state.nested_offset;
  }
  return maxima;
}

class BnbModules final : public QuantizedModules {
 public:
  explicit BnbModules(std::shared_ptr<const HfDirectory> directory)
      : directory_(std::move(directory)) {}

  bool has(const std::string& module) const override {
    return files().has(module + ".weight.absmax") || files().has(module + ".SCB");
  }

  QuantTensor read(const std::string& module) const override {
    return files().has(module + ".SCB") ? read_int8(module) : read_4bit(module);
  }

  std::vector<std::string> notes() const override {
    const std::vector<std::string> names = files().names();
    if (std::ranges::none_of(names, [](const auto& n) { return n.ends_with(".SCB"); })) return {};
    return {directory_->path.string() +
            ": bitsandbytes rounds the activations of 8-bit weights; they are computed in floating "
            "point here, so results are at least as accurate but not the same"};
  }

 private:
  const TensorFiles& files() const { return directory_->files; }

  Tensor of_type(const std::string& name, DType dtype, std::int64_t elements) const {
    Tensor tensor = files().tensor(name);
    if (tensor.dtype() != dtype || tensor.elements() != elements) {
      fail(ErrorKind::kCorrupt, "tensor '{}': {} {} where {} of {} are needed", name,
           to_string(tensor.dtype()), to_string(tensor.shape()), elements, to_string(dtype));
    }
    return tensor;
  }

  QuantTensor read_int8(const std::string& module) const {
    const std::string name = module + ".weight";
    const Tensor values = files().tensor(name);
    if (values.dtype() != DType::kI8 || values.shape().size() != 2 || values.elements() == 0) {
      fail(ErrorKind::kUnsupported, "tensor '{}': {} {} where a matrix of I8 is needed", name,
           to_string(values.dtype()), to_string(values.shape()));
    }
    const std::string order = module + ".weight_format";
    if (files().has(order) && of_type(order, DType::kU8, 1).bytes()[0] != std::byte{0}) {
      fail(ErrorKind::kUnsupported, "module '{}': 8-bit weights in the order of an old kernel",
           module);
    }
    const std::int64_t rows = values.dim(0);
    std::vector<float> scales = floats_of(of_type(module + ".SCB", DType::kF32, rows));
    for (float& scale : scales) scale /= kBnbInt8Top;
    QuantTensor weight{parse_weight_format("int8_channel_sym_sf32"), rows, values.dim(1), {}};
    weight.planes.push_back(pack_signed(values, 8, name));
    weight.planes.push_back(from_float(scales.data(), DType::kF32, {rows, 1}));
    validate(weight);
    return weight;
  }

  // The state of a module, from whichever of the two tensors holds it.
  BnbState state_of(const std::string& module) const {
    for (const char* kind : {"nf4", "fp4"}) {
      const std::string name = module + ".weight.quant_state.bitsandbytes__" + kind;
      if (!files().has(name)) continue;
      const Tensor json = files().tensor(name);
      const auto bytes = json.bytes();
      return parse_bnb_state({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                             "tensor '" + name + "'");
    }
    fail(ErrorKind::kCorrupt, "module '{}': no quant_state of nf4 or fp4 is stored", module);
  }

  QuantTensor read_4bit(const std::string& module) const {
    const BnbState state = state_of(module);
    const std::string name = module + ".weight";
    const std::int64_t count = element_count({state.rows, state.cols});
    const Tensor stored = files().tensor(name);
    if (static_cast<std::int64_t>(stored.byte_size()) != count / 2 + count % 2) {
      fail(ErrorKind::kCorrupt, "tensor '{}': {} bytes for {} codes of 4 bits", name,
           stored.byte_size(), count);
    }
    const BnbScales scales = read_scales(name, state, (count - 1) / state.block + 1);
    const std::vector<float> map =
        floats_of(of_type(name + ".quant_map", DType::kF32, kBnbMapSize));
    const bool whole_groups = state.block % 8 == 0 && state.cols % state.block == 0;
    if (!whole_groups || !std::ranges::equal(map, table_of(state.map).values())) {
      return decoded(stored, map, scales, state);
    }
    Scheme scheme{Granularity::kGroup, state.block, true, DType::kF32};
    if (scales.is_dynamic()) {
      scheme.scale_type = DType::kU8;
      scheme.second_level = SecondLevel::kDynamic;
    }
    QuantTensor weight{
        make_format({{.kind = ElementKind::kCodebook, .bits = 4, .codebook = state.map}, scheme}),
        state.rows,
        state.cols,
        {swap_nibbles(stored, DType::kI32, {state.rows, state.cols / 8})}};
    const Shape groups = {state.rows, state.cols / state.block};
    if (scales.is_dynamic()) {
      weight.planes.push_back(scales.codes.reshaped(groups));
      weight.planes.push_back(scales.factors.reshaped({1, scales.factors.elements()}));
      weight.planes.push_back(from_float(&state.nested_offset, DType::kF32, {1, 1}));
    } else if (scales.map.empty()) {
      weight.planes.push_back(scales.codes.reshaped(groups));
    } else {
      const std::vector<float> maxima = absolute_maxima(scales, state);
      weight.planes.push_back(from_float(maxima.data(), DType::kF32, groups));
    }
    validate(weight);
    return weight;
  }

  BnbScales read_scales(const std::string& name, const BnbState& state, std::int64_t blocks) const {
    BnbScales scales;
    scales.codes = of_type(name + ".absmax", state.nested ? DType::kU8 : DType::kF32, blocks);
    if (!state.nested) return scales;
    const std::int64_t outer = (blocks - 1) / kBnbNestedBlock + 1;
    scales.factors = of_type(name + ".nested_absmax", DType::kF32, outer);
    scales.map = floats_of(of_type(name + ".nested_quant_map", DType::kF32, kBnbNestedMapSize));
    return scales;
  }

  // What no format of ours says, in the type that the weights had.
  static QuantTensor decoded(const Tensor& stored, const std::vector<float>& map,
                             const BnbScales& scales, const BnbState& state) {
    const std::vector<float> maxima = absolute_maxima(scales, state);
    std::vector<float> values(static_cast<std::size_t>(state.rows * state.cols));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto byte = std::to_integer<unsigned>(stored.bytes()[i / 2]);
      const unsigned code = i % 2 == 0 ? byte >> 4 : byte & 15;
      values[i] = map[code] * maxima[i / static_cast<std::size_t>(state.block)];
    }
    return dense(from_float(values.data(), state.dtype, {state.rows, state.cols}));
  }

  std::shared_ptr<const HfDirectory> directory_;
};

}  // namespace

bool probe_bnb(const std::filesystem::path& path) {
  return quant_method_of(path) == "bitsandbytes";
}

std::unique_ptr<Checkpoint> open_bnb(const std::filesystem::path& path) {
  auto directory = open_hf_directory(path);
  auto modules = std::make_unique<BnbModules>(directory);
  return make_hf_checkpoint("bnb", std::move(directory), std::move(modules));
}

}  // namespace nibble
