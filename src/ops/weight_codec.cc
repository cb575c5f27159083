#include "ops/weight_codec.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {

void encode_by(const EncodeArgs& args, const Codec& codec) {
  QuantTensor& out = *args.out;
  const QuantTensor encoded = out.format->encode(args.w, out.rows, out.cols, codec);
  NIBBLE_CHECK(out.planes.size() == encoded.planes.size());
  for (std::size_t i = 0; i < out.planes.size(); ++i) {
    const std::span<const std::byte> bytes = encoded.planes[i].bytes();
    NIBBLE_CHECK(out.planes[i].byte_size() == bytes.size());
    std::ranges::copy(bytes, static_cast<std::byte*>(out.planes[i].address()));
  }
}

void decode_by(const DecodeArgs& args, const Codec& codec) {
  const QuantTensor& weight = *args.weight;
  codec.for_rows(args.rows, weight.cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      weight.format->decode(weight, args.first_row + row, 0, weight.cols,
                            args.out + row * weight.cols, *codec.spans);
    }
  });
}

}  // namespace nibble
