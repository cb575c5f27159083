// Kept results of studies: any bytes give the result of the key that is asked for, or none; never
// an error, because a result can always be computed anew. Kept measurements of mixed precision: any
// bytes are taken or refused.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>

#include "base/error.h"
#include "quantize/measurements.h"
#include "study/result_cache.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("nibble_fuzz_" + std::to_string(::getpid()));
  const nibble::ResultCache cache(folder, {});
  std::filesystem::create_directory(folder);
  std::ofstream(cache.file_of("key"), std::ios::binary)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  if (const auto found = cache.find("key")) {
    try {
      nibble::number_of(*found, "x");
    } catch (const nibble::Error& error) {
      if (error.kind() != nibble::ErrorKind::kCorrupt) std::abort();
    }
  }
  std::filesystem::remove_all(folder);
  try {
    nibble::Measurements({}, "key").parse({reinterpret_cast<const char*>(data), size});
  } catch (const nibble::Error&) {
    // The expected answer to most inputs.
  }
  return 0;
}
