#include "ops/weight_codec.h"

#include "ops/reference/reference.h"

namespace nibble::reference {

void encode(const EncodeArgs& args, ExecContext&) { encode_by(args, Codec{}); }

void decode(const DecodeArgs& args, ExecContext& context) {
  decode_by(args, {&scalar_spans(), &context.pool});
}

}  // namespace nibble::reference
