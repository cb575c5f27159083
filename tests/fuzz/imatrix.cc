// Any bytes as an importance matrix, of either form: entries of whole experts, or an Error.
#include "checkpoint/imatrix.h"

#include <cstdint>
#include <cstdlib>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const nibble::Imatrix imatrix =
        nibble::parse_imatrix(std::as_bytes(std::span(data, size)), "fuzz");
    for (const auto& [name, entry] : imatrix.entries()) {
      const auto cols = static_cast<std::int64_t>(entry.cols());
      const auto means = imatrix.importance(name, cols, 0);
      if (!means.empty() && means.size() != entry.cols()) std::abort();
    }
  } catch (const nibble::Error& error) {
    if (error.kind() == nibble::ErrorKind::kInternal) throw;
  }
  return 0;
}
