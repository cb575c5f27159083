#include "backends/packed_store.h"

#include <fmt/format.h>

#include <memory>
#include <utility>
#include <vector>

namespace nibble {
namespace {

bool in_use(const PackedSlot& slot) { return slot.store != nullptr && !slot.weight.empty(); }

std::string blob_name(const PackedSlot& slot, std::string_view layout, const PackedPlane& plane) {
  return fmt::format("{}/{}/{}", slot.weight, layout, plane.name);
}

}  // namespace

bool load_planes(const PackedSlot& slot, std::string_view layout,
                 std::span<const PackedPlane> planes) {
  if (!in_use(slot)) return false;
  std::vector<Tensor> found;
  for (const PackedPlane& plane : planes) {
    const std::size_t bytes =
        static_cast<std::size_t>(element_count(plane.shape)) * dtype_size(plane.dtype);
    Tensor blob = slot.store->find(blob_name(slot, layout, plane), bytes);
    if (blob.empty()) return false;
    const auto owner = std::make_shared<const Tensor>(std::move(blob));
    found.push_back(Tensor::view(plane.dtype, plane.shape, owner->bytes(), owner));
  }
  for (std::size_t i = 0; i < planes.size(); ++i) *planes[i].tensor = std::move(found[i]);
  return true;
}

void save_planes(const PackedSlot& slot, std::string_view layout,
                 std::span<const PackedPlane> planes) {
  if (!in_use(slot)) return;
  for (const PackedPlane& plane : planes) {
    slot.store->put(blob_name(slot, layout, plane), *plane.tensor);
  }
}

}  // namespace nibble
