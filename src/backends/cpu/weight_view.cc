#include "backends/cpu/weight_view.h"

#include <algorithm>

#include "formats/affine.h"

namespace nibble::cpu {

const unsigned char* bytes_of(const Tensor& plane) {
  return reinterpret_cast<const unsigned char*>(plane.bytes().data());
}

Storage storage_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return Storage::kF32;
    case DType::kF16:
      return Storage::kF16;
    case DType::kBF16:
      return Storage::kBF16;
    default:
      fail(ErrorKind::kInternal, "{} is no type of activations", to_string(dtype));
  }
}

std::optional<WeightView> weight_view(const QuantTensor& tensor) {
  const WeightDescriptor& descriptor = tensor.format->descriptor();
  WeightView view;
  view.rows = tensor.rows;
  view.cols = tensor.cols;
  view.data = bytes_of(tensor.planes[0]);
  view.group = tensor.cols;
  view.groups = 1;
  switch (descriptor.element.kind) {
    case ElementKind::kFloat:
      view.storage = storage_of(descriptor.element.float_type);
      view.row_bytes =
          tensor.cols * static_cast<std::int64_t>(dtype_size(descriptor.element.float_type));
      return view;
    case ElementKind::kBlock:
      view.storage = Storage::kBlock;
      view.block = static_cast<BlockStorage>(descriptor.element.block);
      view.row_bytes = tensor.planes[0].dim(1);
      if (std::ranges::find(kReadBlocks, view.block) == std::end(kReadBlocks)) return std::nullopt;
      return view;
    case ElementKind::kInt:
      break;
    default:
      return std::nullopt;
  }
  const Scheme& scheme = descriptor.scheme;
  if (scheme.granularity == Granularity::kBlock) return std::nullopt;
  view.storage = Storage::kInt;
  view.bits = descriptor.element.bits;
  view.row_bytes = tensor.planes[0].dim(1) * 4;
  view.scales = bytes_of(tensor.planes[1]);
  view.scale_type = storage_of(scheme.scale_type);
  view.zeros = scheme.symmetric ? nullptr : bytes_of(tensor.planes[2]);
  view.groups = groups_per_row(scheme, tensor.cols);
  view.group = tensor.cols / view.groups;
  view.params_per_row = scheme.granularity == Granularity::kTensor ? 0 : view.groups;
  if (view.groups > 1 && view.group % 8 != 0) return std::nullopt;
  return view;
}

void decode(const KernelTable& kernels, const std::optional<WeightView>& view,
            const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
            float* out) {
  if (view) {
    kernels.decode_row(*view, row, begin, count, out);
  } else {
    tensor.format->decode(tensor, row, begin, count, out, kernels.spans);
  }
}

}  // namespace nibble::cpu
