// The interface between the host code of the CPU backend and its per-ISA units.
//
// A unit (isa/<level>.cc) is compiled with the flags of its level, so nothing that it instantiates
// may be visible to the linker: a template of the standard library compiled there would replace the
// portable copy of other units and fault on older machines. Hence plain data and function pointers
// only here, and no header that includes more than <cstdint>. tools/check_isa_symbols.py checks the
// objects.
#pragma once

#include <cstdint>

#include "formats/span_kernels.h"

namespace nibble::cpu {

enum class Storage { kF32, kF16, kBF16, kInt, kBlock };

// In the order of nibble::BlockType; formats/block_decode.cc has the bytes of a block.
enum class BlockStorage {
#define NIBBLE_BLOCK_TYPE(symbol, name, id, elements, bytes) symbol,
#include "formats/block_types.def"
#undef NIBBLE_BLOCK_TYPE
};

// The types of blocks that kernels read in place (kernels/blocks.inl.h).
inline constexpr BlockStorage kReadBlocks[] = {
    BlockStorage::kQ4_0, BlockStorage::kQ4_1, BlockStorage::kQ5_0,  BlockStorage::kQ5_1,
    BlockStorage::kQ8_0, BlockStorage::kQ2_K, BlockStorage::kQ3_K,  BlockStorage::kQ4_K,
    BlockStorage::kQ5_K, BlockStorage::kQ6_K, BlockStorage::kIq4Nl, BlockStorage::kIq4Xs};

// A QuantTensor reduced to pointers, which may be unaligned. Integer weights: see
// formats/affine.h; `groups` of `group` columns a row (1 of `cols` for channel and tensor). Only
// groups that start on a byte for any width (group % 8 == 0, or one a row) are described so.
// Blocks: those of kReadBlocks; of the numbers below only row_bytes.
struct WeightView {
  Storage storage = Storage::kF32;
  BlockStorage block = BlockStorage::kQ4_0;  // kBlock only
  int bits = 0;                              // kInt: 2 ... 8
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const unsigned char* data = nullptr;  // values, or codes
  std::int64_t row_bytes = 0;
  const unsigned char* scales = nullptr;
  Storage scale_type = Storage::kF32;
  const unsigned char* zeros = nullptr;  // null: 2^(bits - 1)
  std::int64_t group = 0;
  std::int64_t groups = 0;          // a row
  std::int64_t params_per_row = 0;  // distance between the scales of two rows; 0 for tensor
};

// Memory that is read next, [rows, bytes] with rows `stride` apart: brought near meanwhile.
struct ReadAhead {
  const unsigned char* data = nullptr;
  std::int64_t stride = 0;
  std::int64_t rows = 0;
  std::int64_t bytes = 0;
};

// y[i, n] = x[i] . w[n] (+ y) (+ bias[n]) for weight rows [row_begin, row_end).
struct GemvTask {
  WeightView w;
  std::int64_t row_begin = 0;
  std::int64_t row_end = 0;
  const float* x = nullptr;
  std::int64_t x_stride = 0;
  std::int64_t m = 0;
  const float* bias = nullptr;  // element row_begin + i belongs to row row_begin + i
  float* y = nullptr;
  std::int64_t y_stride = 0;
  bool add = false;
};

// c[m, n] (+)= a * b (+ bias) on packed operands: a is tiles of `mr` rows, each [k, mr]; b is
// panels of `nr` columns, each [k, nr]. Padding rows and columns are not stored.
struct GemmTask {
  const float* a = nullptr;
  std::int64_t a_tile_stride = 0;
  const float* b = nullptr;
  std::int64_t b_panel_stride = 0;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  const float* bias = nullptr;  // [n] or null
  float* c = nullptr;
  std::int64_t c_stride = 0;
  bool add = false;
};

// The rows of one norm; see NormArgs.
struct NormTask {
  bool layer = false;
  std::int64_t cols = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float weight_offset = 0;
  float eps = 0;
};

// Rotation of all heads of one row; see RopeArgs. `scratch` holds rotary_dim floats.
struct RopeTask {
  float* x = nullptr;
  std::int64_t head_stride = 0;
  std::int64_t heads = 0;
  std::int64_t half = 0;  // rotary_dim / 2
  bool interleaved = false;
  const float* inv_freq = nullptr;
  float position = 0;
  float scale = 1;
  float* scratch = nullptr;
};

// In the order of nibble::Activation.
enum class ActivationKind { kIdentity, kRelu, kSilu, kGelu, kGeluTanh, kGeluQuick, kTanh };

// In the order of nibble::KvType; formats/kv_type.h has the bytes of a row.
enum class KvStorage { kF32, kF16, kBF16, kInt8, kInt4, kFp8 };

// Queries [t_begin, t_begin + t_count) of one sequence against one head of keys and values; `group`
// query heads share it. Query t of head g is q + t * q_row_stride + g * q_head_stride; see
// AttentionArgs for the rest.
struct AttentionTask {
  const float* q = nullptr;
  std::int64_t q_row_stride = 0;
  std::int64_t q_head_stride = 0;
  std::int64_t t_begin = 0;
  std::int64_t t_count = 0;
  std::int64_t group = 1;
  std::int64_t head_dim = 0;
  KvStorage kv_type = KvStorage::kF32;
  const unsigned char* k = nullptr;
  std::int64_t k_row_bytes = 0;
  const unsigned char* v = nullptr;
  std::int64_t v_row_bytes = 0;
  std::int64_t kv_rows = 0;
  std::int64_t q_offset = 0;  // position of query 0 among the keys
  bool causal = true;
  std::int64_t window = 0;
  float scale = 1;
  float softcap = 0;
  const float* alibi_slopes = nullptr;  // [group] or null
  float* out = nullptr;                 // query t, head g: out + t * out_row_stride + g * head_dim
  std::int64_t out_row_stride = 0;
  float* scratch = nullptr;  // what the kernel wants
};

// The keys that a query sees.
struct KeyRange {
  std::int64_t begin;
  std::int64_t end;
};

// Internal linkage: every unit has its own copy.
static inline KeyRange visible_keys(const AttentionTask& t, std::int64_t query) {
  const std::int64_t position = t.q_offset + query;
  KeyRange range = {0, t.kv_rows};
  if (t.causal && position + 1 < range.end) range.end = position + 1;
  if (t.window > 0 && position - t.window + 1 > 0) range.begin = position - t.window + 1;
  return range;
}

// Attention of many queries.
struct AttentionTiles {
  int rows;                                        // most query rows (t_count * group) of one call
  std::int64_t (*scratch)(std::int64_t head_dim);  // floats that a call needs
  void (*run)(const AttentionTask& task);
};

// Attention of one query, t_begin, against some of the keys that it sees.
struct AttentionRows {
  bool (*fits)(const AttentionTask& task);
  std::int64_t (*scratch)(std::int64_t head_dim, std::int64_t group);  // floats that a call needs
  void (*run)(const AttentionTask& task, KeyRange keys, float* part);
};

// A loop of nothing but the products of a unit. What `run` returns depends on all of them.
struct ArithmeticProbe {
  double operations;  // of one round; a multiply-add is two
  float (*run)(std::int64_t rounds);
};

struct TablePanelTask;  // table_panel_kernels.h

struct KernelTable {
  int lanes;
  int mr;                     // rows of an activation tile
  int nr;                     // columns of a weight panel
  int gemv_rows;              // up to so many activation rows gemv is faster than gemm (measured:
                              // docs/kernels.md)
  int attention_row_queries;  // up to so many queries a sequence rows are faster than tiles

  // Weights of one row to float32, exactly as Format::decode. `begin` is a multiple of 16.
  void (*decode_row)(const WeightView& w, std::int64_t row, std::int64_t begin, std::int64_t count,
                     float* out);
  void (*gemv)(const GemvTask& task);
  void (*table_panels)(const TablePanelTask& task);  // null without wide vectors

  // [rows <= nr, k] row-major -> panel [k rounded up to lanes, nr]; missing rows become zeros.
  // `rows` of the source are `stride` apart and readable up to k rounded up to lanes.
  void (*pack_panel)(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t k,
                     float* panel);
  // [rows <= mr, k] row-major -> tile [k, mr], missing rows zeros; writes up to 64 bytes past the
  // tile, so tiles are packed in rising order.
  void (*pack_tile)(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t k,
                    float* tile);
  void (*gemm)(const GemmTask& task);

  void (*norm)(const NormTask& task, const float* x, float* y);
  void (*rope)(const RopeTask& task);  // null where the level has no fused multiply-add
  // multiplier may be null; y may alias x or multiplier
  void (*activate)(ActivationKind kind, float softcap, const float* x, const float* multiplier,
                   std::int64_t count, float* y);
  void (*add)(float scale, const float* x, std::int64_t count, float* y);
  // One row of HadamardArgs.
  void (*hadamard)(float* x, std::int64_t cols);
  // One row of a cache.
  void (*kv_encode)(const float* x, std::int64_t head_dim, KvStorage type, unsigned char* row);

  AttentionTiles attention_tiles;

  // Few queries: query t.t_begin against at most attention_part_keys of the keys that it sees. What
  // they contribute, attention_part_floats(head_dim, group) floats, goes to `part`; attention_merge
  // makes the output of `count` parts that lie one after the other (none: zeros) and uses them up.
  std::int64_t attention_part_keys;
  std::int64_t (*attention_part_floats)(std::int64_t head_dim, std::int64_t group);
  AttentionRows attention_rows;
  void (*attention_merge)(const AttentionTask& task, float* parts, std::int64_t count);

  // Encoding and decoding: the same bits as scalar_spans().
  SpanKernels spans;

  // Loops that reach a limit of the machine; see kernels/probe.inl.h.
  ArithmeticProbe probe;
  float (*probe_read)(const float* data, std::int64_t count);
};

const KernelTable& generic_kernels();
const KernelTable& avx2_kernels();
const KernelTable& avx512_kernels();
const KernelTable& neon_kernels();

}  // namespace nibble::cpu
