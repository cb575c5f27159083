// A weight on the card.
#pragma once

#include <optional>

#include "backends/cuda/byte_weight.h"
#include "backends/cuda/fragment_weight.h"
#include "backends/cuda/kernels/fragment_matrix.h"
#include "backends/cuda/kernels/weight_planes.h"
#include "backends/memory.h"
#include "ops/args.h"

namespace nibble::cuda {

// Made by the backend at load. The canonical planes of its LinearWeight are on the card as well,
// unless the weight was repacked: then there are none.
struct DeviceWeight final : PackedWeight {
  std::optional<FragmentWeight> fragments;
  std::optional<ByteWeight> bytes;
};

// Null when the weight was not repacked.
const FragmentWeight* fragments_of(const LinearWeight& weight);

// Null when the weight is not kept as bytes.
const ByteWeight* bytes_of(const LinearWeight& weight);

// As kernels are told of a type; kInternal for all but F16, BF16 and F32.
FloatType float_type(DType type);
// As they are told of a weight.
FragmentMatrix matrix_of(const FragmentWeight& weight);
WeightPlanes planes_of(const QuantTensor& weight);  // after with_tables()

// False for formats that upload_planes() must decode.
bool has_decoder(const Format& format);

// A weight of a format that looks values up, with its tables behind the planes of the format: F32,
// of the codes, then of scales that are bytes. Others are returned as they are.
QuantTensor with_tables(QuantTensor weight);

// Uploads the planes, tables included; the values do not change. A format that no kernel decodes is
// decoded here, to bf16 where that holds every value and to f32 otherwise: the result is then of
// that format.
QuantTensor upload_planes(QuantTensor weight, DeviceMemory& memory);
// Repacks a weight and uploads that, if it can be.
std::optional<FragmentWeight> upload_fragments(const QuantTensor& weight, ThreadPool& pool,
                                               DeviceMemory& memory);

// Uploads a weight as bytes, if it can be, for calls with activations of this format.
std::optional<ByteWeight> upload_bytes(const QuantTensor& weight, const ActivationFormat& format,
                                       ThreadPool& pool, DeviceMemory& memory);

}  // namespace nibble::cuda
