// Headers of safetensors files: any bytes give either a header whose tensors lie inside the file
// and cover its data once, or an Error.
#include "checkpoint/container/safetensors.h"

#include <cstdint>
#include <cstdlib>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const nibble::SafetensorsHeader header = nibble::parse_safetensors(bytes, "fuzz");
    std::uint64_t covered = header.data_offset;
    for (const nibble::SafetensorsEntry& entry : header.entries) {
      if (entry.begin > entry.end || entry.end > size - header.data_offset) std::abort();
      nibble::element_count(entry.shape);
      covered += entry.end - entry.begin;
    }
    if (covered != size) std::abort();
  } catch (const nibble::Error& error) {
    if (error.kind() != nibble::ErrorKind::kCorrupt) std::abort();
  }
  return 0;
}
