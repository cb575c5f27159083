// NumPy .npy files (format 1.0 to 3.0): little-endian, C order, of the element types below.
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "tensor/tensor.h"

namespace nibble {

// Reads u1, i1, i4, i8, f2, f4, f8 arrays. kCorrupt when the file is damaged, kUnsupported for
// other types, Fortran order or big-endian data.
Tensor read_npy(const std::filesystem::path& path);
// The same from bytes in memory; `what` names them in errors. The result is a copy.
Tensor parse_npy(std::span<const std::byte> bytes, const std::string& what);

// Everything before the data of an array, for callers that write the data piece by piece.
// kUnsupported for other types.
std::string npy_header(DType dtype, const Shape& shape);

// Writes a tensor of one of those types. kDisk on failure; nothing half-written stays.
void write_npy(const std::filesystem::path& path, const Tensor& tensor);

}  // namespace nibble
