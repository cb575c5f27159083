// A Hugging Face directory whose linear layers are stored as the compressed-tensors convention says
// (quant_method "compressed-tensors"): integers packed or plain, F8_E4M3, and E2M1 with scales in
// E4M3 (NVFP4) or E8M0 (MXFP4), with the rounding of activations that its config asks for.
#include <algorithm>
#include <cstring>

#include "checkpoint/affine_parts.h"
#include "checkpoint/byte_codes.h"
#include "checkpoint/compressed_tensors_config.h"
#include "checkpoint/hf_directory.h"
#include "checkpoint/input_scales.h"
#include "checkpoint/pack_quantized.h"
#include "checkpoint/scaled_floats.h"
#include "formats/affine.h"
#include "formats/registry.h"

namespace nibble {
namespace {

void check_dtype(const Tensor& tensor, DType dtype, const std::string& name) {
  if (tensor.dtype() != dtype) {
    fail(ErrorKind::kCorrupt, "tensor '{}': {} where {} is needed", name, to_string(tensor.dtype()),
         to_string(dtype));
  }
}

std::int64_t element(const Tensor& integers, std::int64_t index) {
  if (integers.dtype() == DType::kI64) {
    std::int64_t value = 0;
    std::memcpy(&value, integers.bytes().data() + index * 8, 8);
    return value;
  }
  std::int32_t value = 0;
  std::memcpy(&value, integers.bytes().data() + index * 4, 4);
  return value;
}

class CompressedModules final : public QuantizedModules {
 public:
  explicit CompressedModules(std::shared_ptr<const HfDirectory> directory)
      : directory_(std::move(directory)),
        config_(directory_->config.at("quantization_config"),
                (directory_->path / "config.json").string()) {}

  bool has(const std::string& module) const override {
    return files().has(module + ".weight_packed") ||
           (files().has(module + ".weight_scale") && files().has(module + ".weight"));
  }

  std::vector<std::string> notes() const override {
    const std::string path = directory_->path.string();
    std::vector<std::string> notes = unordered_note(path, unordered_modules());
    if (!config_.ignored().empty()) {
      notes.push_back(fmt::format(
          "{}: asks for {}, which nibble does not round to; these are computed in floating point, "
          "so results are at least as accurate but not the same",
          path, config_.ignored()));
    }
    return notes;
  }

  ActivationFormatPtr activations(const std::string& module) const override {
    const CompressedArgs& args = config_.args(module);
    if (!args.input) return nullptr;
    auto format = std::make_shared<ActivationFormat>(*args.input);
    if (!args.input->is_static) return format;
    return read_input_scales(files(), module, 1, *format);
  }

  QuantTensor read(const std::string& module) const override {
    const CompressedArgs& args = config_.args(module);
    return args.is_float ? read_float(module, args) : read_integers(module, args);
  }

 private:
  const TensorFiles& files() const { return directory_->files; }

  QuantTensor read_integers(const std::string& module, const CompressedArgs& args) const {
    QuantTensor weight;
    Tensor codes = files().has(module + ".weight_packed") ? packed_codes(module, args, weight)
                                                          : int_codes(module, args, weight);
    if (args.granularity == Granularity::kGroup && weight.cols % args.group != 0) {
      fail(ErrorKind::kUnsupported, "module '{}': groups of {} do not divide {} columns", module,
           args.group, weight.cols);
    }
    Tensor scales = read_scales(module, args, weight);
    WeightDescriptor descriptor{{.kind = ElementKind::kInt, .bits = args.bits},
                                {args.granularity, args.group, args.symmetric, scales.dtype()}};
    weight.format = make_format(descriptor);
    weight.planes = {std::move(codes), std::move(scales)};
    if (!args.symmetric) {
      weight.planes.push_back(read_zeros(module, args, weight));
    } else {
      check_no_zeros(module);
    }
    validate(weight);
    const std::vector<std::int32_t> groups = group_index(module);
    return groups.empty() ? weight : in_groups(std::move(weight), groups, module);
  }

  // The canonical codes plane out of weight_packed: mapped, or repacked when it is of the old
  // packing.
  Tensor packed_codes(const std::string& module, const CompressedArgs& args,
                      QuantTensor& weight) const {
    const std::string name = module + ".weight_packed";
    Tensor packed = files().tensor(name);
    check_dtype(packed, DType::kI32, name);
    const Tensor shape = files().tensor(module + ".weight_shape");
    if ((shape.dtype() != DType::kI64 && shape.dtype() != DType::kI32) || shape.elements() != 2) {
      fail(ErrorKind::kCorrupt, "tensor '{}.weight_shape': not two integers", module);
    }
    weight.rows = element(shape, 0);
    weight.cols = element(shape, 1);
    if (packed.shape().size() != 2 || packed.dim(0) != weight.rows || weight.rows < 1 ||
        weight.cols < 1) {
      fail(ErrorKind::kCorrupt, "tensor '{}': shape {} cannot hold the weight_shape [{}, {}]", name,
           to_string(packed.shape()), weight.rows, weight.cols);
    }
    const Packing packing = detect_packing(weight.cols, args.bits, packed.dim(1),
                                           config_.preferred_packing(), "tensor '" + name + "'");
    return packing == Packing::kDense ? packed : to_dense_packing(packed, weight.cols, args.bits);
  }

  // The canonical codes plane out of plain I8 values.
  Tensor int_codes(const std::string& module, const CompressedArgs& args,
                   QuantTensor& weight) const {
    const std::string name = module + ".weight";
    const Tensor values = files().tensor(name);
    if (values.dtype() != DType::kI8 || values.shape().size() != 2 || values.elements() == 0) {
      fail(ErrorKind::kUnsupported, "tensor '{}': {} {} is no quantized weight that nibble reads",
           name, to_string(values.dtype()), to_string(values.shape()));
    }
    weight.rows = values.dim(0);
    weight.cols = values.dim(1);
    return pack_signed(values, args.bits, name);
  }

  // F8_E4M3 [rows, cols] or E2M1 codes U8 [rows, cols / 2], under scales as the strategy says.
  QuantTensor read_float(const std::string& module, const CompressedArgs& args) const {
    ScaledFloats parts;
    const bool four_bits = args.bits == 4;
    parts.codes = files().tensor(module + (four_bits ? ".weight_packed" : ".weight"));
    parts.scales = files().tensor(module + ".weight_scale");
    const std::string global = module + ".weight_global_scale";
    if (files().has(global)) parts.tensor_scale = 1.0f / read_single_float(files(), global);
    parts.granularity = args.granularity;
    parts.group = args.group;
    parts.block_rows = args.block_rows;
    check_no_zeros(module);
    return assemble(parts, "module '" + module + "'");
  }

  // The group of each column where the file says it; the writer's placeholder is -1 everywhere.
  std::vector<std::int32_t> group_index(const std::string& module) const {
    std::vector<std::int32_t> groups = read_indices(files(), module + ".weight_g_idx");
    if (std::ranges::all_of(groups, [](std::int32_t g) { return g == -1; })) groups.clear();
    return groups;
  }

  std::int64_t unordered_modules() const {
    std::int64_t unordered = 0;
    for (const std::string& name : files().names()) {
      if (!name.ends_with(".weight_g_idx")) continue;
      const std::string module = name.substr(0, name.rfind('.'));
      AffineParts parts;
      parts.group_of_column = group_index(module);
      parts.group = config_.args(module).group;
      parts.cols = parts.group;  // whether groups are whole is checked when a weight is read
      unordered += in_order(parts) ? 0 : 1;
    }
    return unordered;
  }

  // The weight, whose columns belong to these groups: as it is where that says nothing new.
  static QuantTensor in_groups(QuantTensor weight, const std::vector<std::int32_t>& groups,
                               const std::string& module) {
    const WeightDescriptor& d = weight.format->descriptor();
    AffineParts parts;
    parts.bits = d.element.bits;
    parts.rows = weight.rows;
    parts.cols = weight.cols;
    parts.group = d.scheme.granularity == Granularity::kGroup ? d.scheme.group : 0;
    parts.symmetric = d.scheme.symmetric;
    parts.group_of_column = groups;
    if (static_cast<std::int64_t>(groups.size()) == weight.cols && in_order(parts)) return weight;
    parts.codes = weight.planes[0];
    parts.scales = weight.planes[1];
    if (parts.symmetric) {
      parts.zeros = Tensor::allocate(DType::kU8, parts.scales.shape());
      std::memset(parts.zeros.address(), 1 << (parts.bits - 1), parts.zeros.byte_size());
    } else {
      parts.zeros = weight.planes[2];
    }
    return assemble(std::move(parts), "module '" + module + "'");
  }

  Tensor read_scales(const std::string& module, const CompressedArgs& args,
                     const QuantTensor& weight) const {
    const std::string name = module + ".weight_scale";
    const Tensor scales = files().tensor(name);
    if (!is_float_weight(scales.dtype())) {
      fail(ErrorKind::kUnsupported, "tensor '{}': scales of {}", name, to_string(scales.dtype()));
    }
    return as_parameters(scales, parameter_shape(args, weight), "tensor '" + name + "'");
  }

  static Shape parameter_shape(const CompressedArgs& args, const QuantTensor& weight) {
    return {args.granularity == Granularity::kTensor ? 1 : weight.rows,
            args.granularity == Granularity::kGroup ? weight.cols / args.group : 1};
  }

  Tensor read_zeros(const std::string& module, const CompressedArgs& args,
                    const QuantTensor& weight) const {
    const std::string name = module + ".weight_zero_point";
    const Tensor stored = files().tensor(name);
    if (stored.dtype() == DType::kI8) {
      const Tensor values =
          as_parameters(stored, parameter_shape(args, weight), "tensor '" + name + "'");
      Tensor zeros = Tensor::allocate(DType::kU8, values.shape());
      std::ranges::copy(to_codes(values, args.bits, name), zeros.mutable_data<std::uint8_t>());
      return zeros;
    }
    check_dtype(stored, DType::kI32, name);
    const Tensor& scales = weight.planes[1];
    if (stored.shape().size() != 2 || stored.dim(1) != scales.dim(1)) {
      fail(ErrorKind::kCorrupt, "tensor '{}': shape {} beside scales {}", name,
           to_string(stored.shape()), to_string(scales.shape()));
    }
    const Packing packing = detect_packing(scales.dim(0), args.bits, stored.dim(0),
                                           config_.preferred_packing(), "tensor '" + name + "'");
    return unpack_zeros(stored, scales.dim(0), args.bits, packing);
  }

  // Old writers stored zero points of symmetric weights too, all of them zero.
  void check_no_zeros(const std::string& module) const {
    const std::string name = module + ".weight_zero_point";
    if (!files().has(name)) return;
    const Tensor zeros = files().tensor(name);
    if (std::ranges::any_of(zeros.bytes(), [](std::byte b) { return b != std::byte{0}; })) {
      fail(ErrorKind::kCorrupt, "tensor '{}': zero points of symmetric weights", name);
    }
  }

  std::shared_ptr<const HfDirectory> directory_;
  CompressedConfig config_;
};

}  // namespace

bool probe_compressed_tensors(const std::filesystem::path& path) {
  return quant_method_of(path) == "compressed-tensors";
}

std::unique_ptr<Checkpoint> open_compressed_tensors(const std::filesystem::path& path) {
  auto directory = open_hf_directory(path);
  auto modules = std::make_unique<CompressedModules>(directory);
  return make_hf_checkpoint("compressed-tensors", std::move(directory), std::move(modules));
}

}  // namespace nibble
