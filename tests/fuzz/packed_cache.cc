// Files of repacked weights: any bytes give blobs that lie inside the file, or none; never an
// error, because the weights can always be made anew.
#include "checkpoint/packed_cache.h"

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::filesystem::path file =
      std::filesystem::temp_directory_path() / ("nibble_fuzz_" + std::to_string(::getpid()));
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  nibble::PackedCache cache(file, "fuzz\n", {});
  std::size_t sum = 0;
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{64}, std::size_t{100}}) {
    const nibble::Tensor found = cache.find("a", bytes);
    if (!found.empty() && found.byte_size() != bytes) std::abort();
    for (const std::byte value : found.bytes()) sum += std::to_integer<std::size_t>(value);
  }
  if (sum > 165 * 255) std::abort();
  std::filesystem::remove(file);
  return 0;
}
