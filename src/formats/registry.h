// The grammar of formats and the registered short names.
//
//   w=int4_g128_asym,a=bf16,kv=f16,e=bf16
//
// Each part is element[_scheme...]; parts left out are 16-bit. A weight format is f32 | f16 | bf16
// | int<2..8>[_tensor|_channel|_g<size>|_b<rows>x<columns>][_sym|_asym][_strict|_full]
// [_sf16|_sbf16|_sf32][_x<columns>] (default: channel, asym; scales in the 16-bit type of the
// checkpoint; with x, so many columns stay in 16 bits), or a small float or codebook,
//
//   fp<4..8>_e<e>m<m>[fn|ieee|fnuz|all][b<bias>] | nf2 | nf3 | nf4 | bnb4 | fixed8 | binary |
//   ternary | linear8 | dynamic8 | lloyd<2..8> | quantile<2..8>
//       [_tensor|_channel|_g<size>|_b<rows>x<columns>]
//       [_sf16|_sbf16|_sf32|_se8m0|_se4m3|_sdq8]
//       [_floor|_ceil|_best|_4over6|_mean]    (default: channel, sf32; floor for se8m0; mean for
//       [_own]                                binary and ternary; own for lloyd and quantile: a
//                                             table for each scale)
//
// or trellis<2..8>[_sf16|_sbf16|_sf32] (formats/trellis.h), each perhaps with _lr<rank> behind
// (formats/low_rank.h), where the bits are those of a code, sign included, or the name of a block
// type (block_types.def: q4_k, iq4_xs, ...), or integers of several widths,
//
//   mixed[_<bits>g<size>x<groups>|_<bits>g<size>p<percent>]..._<bits>g<size>
//   (formats/mixed_format.h)
//
// An activation format
// (a=) is such an element with [_sym|_asym][_token|_tensor|_g<size>][_static][_o<threshold>]
// (formats/activation_format.h). A colon is as good as an underscore: fp4_e2m1:token. A cache
// format (kv=) is f32 | f16 | bf16 | int8_head | int4_head | fp8_head, of codes with [_hadamard]
// (formats/kv_type.h). Short names
// (`w4a16_g128`) are lines of registry.def.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/activation_format.h"
#include "formats/format.h"
#include "formats/kv_type.h"

namespace nibble {

// The format of a whole model: what is stored for each kind of tensor. A null part is left as the
// checkpoint has it (16-bit).
struct ModelFormat {
  FormatPtr weights;                // w=  linear layers of the blocks
  FormatPtr embeddings;             // e=  input embedding and head
  std::optional<KvFormat> kv;       // kv=
  ActivationFormatPtr activations;  // a=  inputs of those linear layers; null: not rounded
  // True when the name leaves the type of scales open: the 16-bit type of the checkpoint is taken.
  bool scale_type_from_checkpoint = true;
};

struct FormatAlias {
  std::string name;        // "w4a16_g128"
  std::string definition;  // "w=int4_g128_asym"
};

// kUsage with the nearest registered names when the text is no format; kUnsupported when it is one
// that nibble cannot compute with.
ModelFormat parse_model_format(std::string_view text);
FormatPtr parse_weight_format(std::string_view text);

// A format from its descriptor; kUnsupported for descriptors outside the limits (2-8 bits, ...).
FormatPtr make_format(const WeightDescriptor& descriptor);

// The format of blocks of a type.
FormatPtr block_format(BlockType type);

// The same format with scales of another type; formats without scales are returned as they are.
FormatPtr with_scale_type(const FormatPtr& format, DType scale_type);

// `format` with open types of scales settled as `half`, F16 or BF16.
ModelFormat with_half_scales(ModelFormat format, DType half);

// The format, or with the largest smaller group (halved, at least 16) that a [rows, cols] matrix
// can be cut into; null when there is none.
FormatPtr fitting_format(const FormatPtr& wanted, std::int64_t rows, std::int64_t cols);

// The registry, in the order of registry.def.
const std::vector<FormatAlias>& format_aliases();

}  // namespace nibble
