#include "backends/encoded.h"

namespace nibble {
namespace {

QuantTensor encoded_on_host(Backend& backend, const QuantTensor& weight, const FormatPtr& format) {
  std::vector<float> values(static_cast<std::size_t>(weight.rows * weight.cols));
  const Codec codec = backend.codec();
  decode_all(weight, values.data(), codec);
  return format->encode(values.data(), weight.rows, weight.cols, codec);
}

}  // namespace

QuantTensor encoded(Backend& backend, const QuantTensor& weight, const FormatPtr& format) {
  if (!backend.encodes(*format, weight.rows, weight.cols)) {
    return encoded_on_host(backend, weight, format);
  }
  DeviceMemory& memory = backend.memory();
  Tensor values = memory.allocate(DType::kF32, {weight.rows, weight.cols});
  const QuantTensor source = backend.prepare_table(weight);
  DecodeArgs decode;
  decode.weight = &source;
  decode.rows = weight.rows;
  decode.out = values.mutable_data<float>();
  backend.run(decode);
  QuantTensor result{format, weight.rows, weight.cols, {}};
  for (const PlaneSpec& plane : format->planes(weight.rows, weight.cols)) {
    result.planes.push_back(memory.allocate(plane.dtype, plane.shape));
  }
  EncodeArgs encode;
  encode.w = decode.out;
  encode.out = &result;
  backend.run(encode);
  for (Tensor& plane : result.planes) plane = memory.download(plane);
  return result;
}

}  // namespace nibble
