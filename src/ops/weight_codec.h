// Encoding and decoding as ops of the host: by the functions and threads of a codec.
#pragma once

#include "ops/args.h"

namespace nibble {

void encode_by(const EncodeArgs& args, const Codec& codec);
void decode_by(const DecodeArgs& args, const Codec& codec);

}  // namespace nibble
