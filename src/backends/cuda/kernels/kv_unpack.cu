// A warp a row, four columns a lane at a time.
#include <climits>

#include "backends/cuda/device/kv_blocks.cuh"
#include "backends/cuda/device/kv_dispatch.h"
#include "backends/cuda/device/kv_rows.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/mma_m16n8k16.cuh"
#include "backends/cuda/kernels/kv_unpack.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsOfBlock = kThreads / 32 * 4;

template <KvType kType>
__global__ void __launch_bounds__(kThreads)
    unpack(const __grid_constant__ AttentionLaunch args, int columns) {
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const DeviceSequence& sequence = args.sequences[blockIdx.z];
  const bool values = blockIdx.y % 2 == 1;
  const std::int64_t head = blockIdx.y / 2;
  const std::int64_t stride = values ? sequence.v_row_stride : sequence.k_row_stride;
  const auto* from = static_cast<const std::uint8_t*>(values ? sequence.v : sequence.k) +
                     head * (values ? sequence.v_head_stride : sequence.k_head_stride);
  const std::int64_t plane = std::int64_t{blockIdx.z} * gridDim.y + blockIdx.y;
  auto* to = static_cast<std::uint16_t*>(args.workspace) + plane * args.max_kv_rows * columns;
  const KvPlaces places(args.blocks, static_cast<int>(blockIdx.z));
  const std::int64_t first = std::int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int64_t row = first + i * (kThreads / 32);
    if (row >= sequence.kv_rows) return;
    const KvRowReader<kType> reader(from + places.offset(static_cast<int>(row), stride));
    for (int d = static_cast<int>(threadIdx.x) % 32 * 4; d < columns; d += 128) {
      float x[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) x[j] = d + j < args.head_dim ? reader[d + j] : 0;
      *reinterpret_cast<uint2*>(to + row * columns + d) =
          make_uint2(Bf16Pairs::pack(x[0], x[1]), Bf16Pairs::pack(x[2], x[3]));
    }
  }
}

}  // namespace

std::int64_t kv_unpack_columns(int head_dim) {
  return head_dim > 128 ? 256 : head_dim > 64 ? 128 : 64;
}

const char* prefill_sizes_unsupported(const AttentionLaunch& args, int most_dim, int block_rows) {
  if (args.head_dim < 8 || args.head_dim > most_dim || args.head_dim % 8 != 0) {
    return most_dim == 128 ? "head_dim is no multiple of 8 up to 128"
                           : "head_dim is no multiple of 8 up to 256";
  }
  if (args.kv_heads < 1 || args.heads % args.kv_heads != 0) return "heads that kv_heads divide not";
  if (args.max_q_rows / block_rows > 65534 || args.sequence_count > 65535) {
    return "more than 65535 sequences or blocks of query rows";
  }
  if (args.max_kv_rows > INT_MAX / 2) return "2^30 keys";
  return nullptr;
}

std::size_t kv_unpack_bytes(const AttentionLaunch& args) {
  if (reads_cache(args)) return 0;
  return static_cast<std::size_t>(2 * args.sequence_count) *
         static_cast<std::size_t>(args.kv_heads * args.max_kv_rows) *
         static_cast<std::size_t>(kv_unpack_columns(args.head_dim)) * sizeof(std::uint16_t);
}

cudaError_t kv_unpack(const AttentionLaunch& args, cudaStream_t stream) {
  if (reads_cache(args)) return cudaSuccess;
  if (args.sequence_count == 0 || args.max_kv_rows == 0) return cudaSuccess;
  LaunchShape shape;
  shape.grid =
      dim3(static_cast<unsigned>((args.max_kv_rows + kRowsOfBlock - 1) / kRowsOfBlock),
           static_cast<unsigned>(2 * args.kv_heads), static_cast<unsigned>(args.sequence_count));
  shape.block = dim3(kThreads);
  shape.dependent = args.dependent_launch;
  return with_kv_type(args.kv_type, [&](auto type) {
    return launch(unpack<decltype(type)::value>, shape, stream, args,
                  static_cast<int>(kv_unpack_columns(args.head_dim)));
  });
}

}  // namespace nibble::cuda
