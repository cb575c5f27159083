#include "formats/block_type.h"

#include <algorithm>

namespace nibble {
namespace {

constexpr BlockLayout kLayouts[] = {
#define NIBBLE_BLOCK_TYPE(symbol, name, id, elements, bytes) \
  {BlockType::symbol, name, id, elements, bytes},
#include "formats/block_types.def"
#undef NIBBLE_BLOCK_TYPE
};

template <class Value, class Member>
std::optional<BlockType> find(Value value, Member member) {
  const auto found = std::ranges::find(kLayouts, value, member);
  if (found == std::end(kLayouts)) return std::nullopt;
  return found->type;
}

}  // namespace

std::span<const BlockLayout> block_layouts() { return kLayouts; }

const BlockLayout& layout_of(BlockType type) { return kLayouts[static_cast<std::size_t>(type)]; }

std::optional<BlockType> block_type_named(std::string_view name) {
  return find(name, &BlockLayout::name);
}

std::optional<BlockType> block_type_of_id(std::uint32_t id) { return find(id, &BlockLayout::id); }

}  // namespace nibble
