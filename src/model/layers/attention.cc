#include "model/layers/attention.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "model/layers/latent.h"
#include "model/rope.h"

namespace nibble {
namespace {

// q, k and v of one piece, inside one buffer or three.
struct Qkv {
  HeadView<float> q, k, v;
};

HeadView<float> shifted(const HeadView<float>& view, std::int64_t rows) {
  return {view.data + rows * view.row_stride, view.row_stride, view.head_stride};
}

template <class T>
HeadView<const T> constant(const HeadView<T>& view) {
  return {view.data, view.row_stride, view.head_stride};
}

constexpr std::int64_t kFloatBytes = sizeof(float);

class AttentionCall {
 public:
  AttentionCall(const LayerContext& context, const Batch& batch, const Piece& piece,
                ScratchKvs& scratch, OpChain& chain)
      : context_(context),
        spec_(context.spec.attention),
        batch_(batch),
        piece_(piece),
        scratch_(scratch),
        chain_(chain),
        buffer_(context.backend, piece.rows, (spec_.heads + 2 * spec_.kv_heads) * spec_.head_dim) {
    if (spec_.latent) latent_.emplace(context, piece.rows);
  }

  void run(const float* x, Output out) {
    project(x);
    if (spec_.qk_norm) {
      norm_heads(context_.weights.q_norm, qkv_.q, spec_.heads);
      norm_heads(context_.weights.k_norm, qkv_.k, spec_.kv_heads);
    }
    rotate_and_store();
    Rows attended(context_.backend, piece_.rows, spec_.heads * spec_.head_dim);
    attend(attended.data());
    if (kv_format().hadamard) {
      chain_.run();
      mix_heads(attended.data(), spec_.heads);  // H is its own inverse
    }
    if (!latent_) return project_out(attended.data(), out);
    chain_.run();
    Rows values(context_.backend, piece_.rows, spec_.heads * spec_.value_dim());
    latent_->narrow(attended.data(), values.data());
    project_out(values.data(), out);
  }

 private:
  std::int64_t window() const { return spec_.windows[static_cast<std::size_t>(context_.layer)]; }

  const RopeSpec& rope() const {
    return window() > 0 && spec_.window_rope ? *spec_.window_rope : *spec_.rope;
  }

  void project_out(float* values, Output out) {
    mix_input(chain_, context_.weights.o, values, piece_.rows, context_.backend);
    context_.observe(chain_, "attn_out", values, piece_.rows, spec_.heads * spec_.value_dim());
    chain_.add({{context_.weights.o, out}}, values, piece_.rows);
    chain_.run();
  }

  void project(const float* x) {
    const LayerWeights& weights = context_.weights;
    const std::int64_t dim = spec_.head_dim;
    const std::int64_t q_cols = spec_.heads * dim;
    const std::int64_t kv_cols = spec_.kv_heads * dim;
    float* data = buffer_.data();
    if (spec_.layout == QkvLayout::kSeparate || latent_) {
      float* k = data + piece_.rows * q_cols;
      float* v = k + piece_.rows * kv_cols;
      qkv_ = {{data, q_cols, dim}, {k, kv_cols, dim}, {v, kv_cols, dim}};
      if (latent_) return latent_->project(chain_, x, data);
      chain_.add({{weights.q, {data}}, {weights.k, {k}}, {weights.v, {v}}}, x, piece_.rows);
      return chain_.run();
    }
    chain_.add({{weights.qkv, {data}}}, x, piece_.rows);
    chain_.run();
    const std::int64_t row = q_cols + 2 * kv_cols;
    if (spec_.layout == QkvLayout::kConcat) {
      qkv_ = {{data, row, dim}, {data + q_cols, row, dim}, {data + q_cols + kv_cols, row, dim}};
    } else {
      qkv_ = {{data, row, 3 * dim}, {data + dim, row, 3 * dim}, {data + 2 * dim, row, 3 * dim}};
    }
  }

  void norm_heads(const Norm& norm, const HeadView<float>& x, std::int64_t heads) {
    NormArgs args;
    args.kind = spec_.qk_norm->kind;
    args.rows = piece_.rows;
    args.cols = spec_.head_dim;
    args.x_stride = args.y_stride = x.row_stride;
    args.weight = norm.weight.empty() ? nullptr : norm.weight.data<float>();
    args.bias = norm.bias.empty() ? nullptr : norm.bias.data<float>();
    args.weight_offset = spec_.qk_norm->weight_offset;
    args.eps = spec_.qk_norm->eps;
    std::int64_t calls = heads;
    if (x.row_stride == heads * x.head_stride) {  // heads of all rows lie at one distance
      args.rows = piece_.rows * heads;
      args.x_stride = args.y_stride = x.head_stride;
      calls = 1;
    }
    for (std::int64_t h = 0; h < calls; ++h) {
      args.x = args.y = x.data + h * x.head_stride;
      context_.backend.run(args);
    }
  }

  // Rotates queries and keys, and stores keys and values.
  void rotate_and_store() {
    if (!spec_.rope) return store_all(nullptr);
    const std::vector<std::int32_t> positions = position_of_rows();
    if (depends_on_length(rope())) {
      for (const SequencePart& segment : piece_.segments) {
        const Batch::Sequence& sequence = batch_.sequences[segment.sequence];
        const RopeTable table = rope_table(rope(), sequence.first_position + sequence.rows);
        rotate(rope_args(table, positions, segment.begin, segment.rows));
      }
    } else {
      const RopeTable& table = fixed_rope_table(rope());
      const RopeArgs args = rope_args(table, positions, 0, piece_.rows);
      const bool at_once = all_stored() && args.rotary_dim > 0 && !latent_ && !kv_format().hadamard;
      if (at_once) return store_all(&args);
      rotate(args);
    }
    if (latent_) latent_->expand(qkv_.k.data, qkv_.v.data);
    store_all(nullptr);
  }

  // What of the queries and of the keys is rotated.
  HeadView<float> rotated_queries() const {
    HeadView<float> q = qkv_.q;
    if (latent_) q.data += spec_.latent->nope_dim;
    return q;
  }
  HeadView<float> rotated_keys() { return latent_ ? latent_->shared_keys() : qkv_.k; }

  std::vector<std::int32_t> position_of_rows() const {
    std::vector<std::int32_t> positions(static_cast<std::size_t>(piece_.rows));
    for (const SequencePart& segment : piece_.segments) {
      const auto first = positions.begin() + segment.begin;
      std::iota(first, first + segment.rows, static_cast<std::int32_t>(first_token(segment)));
    }
    return positions;
  }

  // The rotation of the queries of some rows of the piece.
  RopeArgs rope_args(const RopeTable& table, std::span<const std::int32_t> positions,
                     std::int64_t begin, std::int64_t rows) const {
    RopeArgs args;
    args.x = shifted(rotated_queries(), begin);
    args.rows = rows;
    args.heads = spec_.heads;
    args.rotary_dim = 2 * static_cast<std::int64_t>(table.inv_freq.size());
    args.interleaved = rope().interleaved;
    args.inv_freq = table.inv_freq;
    args.positions =
        positions.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(rows));
    args.scale = table.scale;
    return args;
  }

  // Queries, and keys with them.
  void rotate(RopeArgs args) {
    if (args.rotary_dim == 0) return;  // partial_rotary_factor 0
    context_.backend.run(args);
    const std::int64_t begin = (args.x.data - qkv_.q.data) / qkv_.q.row_stride;
    args.x = shifted(rotated_keys(), begin);
    args.heads = latent_ ? 1 : spec_.kv_heads;
    context_.backend.run(args);
  }

  KvCache* cache_of(const SequencePart& segment) const {
    return batch_.sequences[segment.sequence].cache;
  }

  // Appends where the keys and values of a segment go; nowhere when nobody reads them after this
  // call.
  void append_stored_rows(const SequencePart& segment, std::vector<KvRun>& runs) {
    const std::int64_t first = first_token(segment);
    if (KvCache* cache = cache_of(segment)) {
      cache->append_runs(context_.layer, first, segment.rows, runs);
    } else if (!segment.whole) {
      runs.push_back({segment.rows, from_row(scratch_rows(segment, true), first),
                      from_row(scratch_rows(segment, false), first)});
    }
  }

  // Keys (values) of a sequence that is cut into pieces and has no cache.
  HeadView<void> scratch_rows(const SequencePart& segment, bool keys) {
    ScratchKv& kv = scratch_[segment.sequence];
    Tensor& tensor = keys ? kv.k : kv.v;
    if (tensor.empty()) {
      tensor = context_.backend.memory().allocate(
          DType::kF32, {batch_.sequences[segment.sequence].rows, spec_.kv_heads, spec_.head_dim});
    }
    return {tensor.mutable_data<float>(), spec_.kv_heads * spec_.head_dim * kFloatBytes,
            spec_.head_dim * kFloatBytes};
  }

  bool all_stored() const {
    return std::ranges::all_of(piece_.segments, [&](const SequencePart& segment) {
      return cache_of(segment) != nullptr || !segment.whole;
    });
  }

  // Of all caches of the piece.
  KvFormat kv_format() const {
    return nibble::kv_format(batch_.sequences[piece_.segments.front().sequence]);
  }

  // `heads` heads of each row of the piece, one behind the other.
  void mix_heads(float* x, std::int64_t heads) {
    context_.backend.run(HadamardArgs{x, piece_.rows * heads, spec_.head_dim});
  }

  // Stores new keys and values where they are to be kept. With `rope`, rotates queries and keys
  // first. A cache of mixed heads needs all of them mixed, and rotated before.
  void store_all(const RopeArgs* rope) {
    if (kv_format().hadamard) mix_heads(buffer_.data(), spec_.heads + 2 * spec_.kv_heads);
    std::vector<KvWriteSequence> sequences;
    std::vector<KvRun> runs;  // of a segment
    for (const SequencePart& segment : piece_.segments) {
      std::int64_t begin = segment.begin;
      runs.clear();
      append_stored_rows(segment, runs);
      for (const KvRun& run : runs) {
        sequences.push_back({begin, run.rows, run.k, run.v});
        begin += run.rows;
      }
    }
    if (sequences.empty()) return;
    KvWriteArgs args;
    args.k = qkv_.k;
    args.v = constant(qkv_.v);
    args.sequences = sequences;
    args.heads = spec_.kv_heads;
    args.head_dim = spec_.head_dim;
    args.type = kv_format().type;
    args.rope = rope;
    context_.backend.run(args);
  }

  // All keys (values) of a segment's sequence so far.
  HeadView<const void> rows_so_far(const SequencePart& segment, const HeadView<float>& x,
                                   bool keys) {
    if (KvCache* cache = cache_of(segment)) {
      return constant(keys ? cache->k(context_.layer) : cache->v(context_.layer));
    }
    if (!segment.whole) return constant(scratch_rows(segment, keys));
    return {shifted(x, segment.begin).data, x.row_stride * kFloatBytes,
            x.head_stride * kFloatBytes};
  }

  // Position of a segment's first token in its sequence.
  std::int64_t first_token(const SequencePart& segment) const {
    return batch_.sequences[segment.sequence].first_position + segment.offset;
  }

  // Puts the op into the chain.
  void attend(float* out) {
    sequences_.reserve(piece_.segments.size());
    for (const SequencePart& segment : piece_.segments) {
      const std::int64_t before = first_token(segment);
      AttentionSequence sequence;
      sequence.q_begin = segment.begin;
      sequence.q_rows = segment.rows;
      sequence.kv_rows = before + segment.rows;
      sequence.q_offset = before;
      sequence.k = rows_so_far(segment, qkv_.k, true);
      sequence.v = rows_so_far(segment, qkv_.v, false);
      if (const KvCache* cache = cache_of(segment)) {
        sequence.blocks = cache->blocks();
        sequence.block_rows = cache->block_rows();
      }
      sequences_.push_back(sequence);
    }
    if (spec_.alibi) slopes_ = alibi_slopes(spec_.heads);
    AttentionArgs args;
    args.q = constant(qkv_.q);
    args.sequences = sequences_;
    args.heads = spec_.heads;
    args.kv_heads = spec_.kv_heads;
    args.head_dim = spec_.head_dim;
    args.kv_type = kv_format().type;
    args.causal = spec_.causal;
    args.window = window();
    args.scale = spec_.inverse_layer_scale ? spec_.scale / static_cast<float>(context_.layer + 1)
                                           : spec_.scale;
    args.softcap = spec_.softcap;
    args.alibi_slopes = slopes_;
    args.sinks = context_.weights.sinks;
    args.out = out;
    args.out_stride = spec_.heads * spec_.head_dim;
    chain_.add(args);
  }

  const LayerContext& context_;
  const AttentionSpec& spec_;
  const Batch& batch_;
  const Piece& piece_;
  ScratchKvs& scratch_;
  OpChain& chain_;
  Rows buffer_;
  std::optional<LatentProjection> latent_;
  Qkv qkv_;
  std::vector<AttentionSequence> sequences_;  // of the op in the chain, as what follows
  std::vector<float> slopes_;
};

}  // namespace

void run_attention(const LayerContext& context, const Batch& batch, const Piece& piece,
                   ScratchKvs& scratch, OpChain& chain, const float* x, Output out) {
  context.observe(chain, "attn_in", x, piece.rows, context.spec.hidden);
  AttentionCall(context, batch, piece, scratch, chain).run(x, out);
}

}  // namespace nibble
