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
  decode_rows(*args.weight, args.first_row, args.rows, args.out, codec);
}

}  // namespace nibble
