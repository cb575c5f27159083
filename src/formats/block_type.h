// The block types of ggml, as GGUF files hold them: codes and scales of a run of elements of one
// row stand together in a block of a fixed number of bytes. Layouts: ggml's block structures; each
// is spelled out in block_decode.cc or block_decode_grids.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace nibble {

enum class BlockType : std::uint8_t {
#define NIBBLE_BLOCK_TYPE(symbol, name, id, elements, bytes) symbol,
#include "formats/block_types.def"
#undef NIBBLE_BLOCK_TYPE
};

struct BlockLayout {
  BlockType type;
  std::string_view name;  // of the format: "q4_k"
  std::uint32_t id;       // of the type in GGUF files
  int elements;           // of a block
  int bytes;              // of a block
};

// In the order of block_types.def.
std::span<const BlockLayout> block_layouts();
const BlockLayout& layout_of(BlockType type);
std::optional<BlockType> block_type_named(std::string_view name);
std::optional<BlockType> block_type_of_id(std::uint32_t id);

}  // namespace nibble
