// Any bytes as a GGUF file: a header whose tensors lie within the file, each by itself, or an
// Error; and what its keys say becomes a config and a tokenizer, or an Error.
#include "checkpoint/container/gguf.h"

#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "checkpoint/gguf_arch.h"
#include "checkpoint/gguf_tokenizer.h"
#include "model/tokenizer/tokenizer.h"

namespace {

template <class Body>
void tolerate(const Body& body) {
  try {
    body();
  } catch (const nibble::Error& error) {
    if (error.kind() == nibble::ErrorKind::kInternal) throw;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  tolerate([&] {
    const nibble::GgufHeader header = nibble::parse_gguf(bytes, "fuzz");
    for (const nibble::GgufTensor& tensor : header.tensors) {
      const std::uint64_t begin = header.data_offset + tensor.offset;
      if (begin > size || tensor.bytes > size - begin) std::abort();
      if (nibble::element_count(tensor.shape) % tensor.type.elements() != 0) std::abort();
    }
    tolerate([&] { nibble::config_from_gguf(header.metadata, header.tensors, {}, "fuzz"); });
    tolerate([&] {
      const auto documents = nibble::tokenizer_from_gguf(header.metadata, "fuzz");
      if (documents) nibble::make_tokenizer(*documents)->encode("a b");
    });
  });
  return 0;
}
