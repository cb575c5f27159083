// The one forward pass: how embedding, blocks and head are put together.
#include <algorithm>

#include "base/error.h"
#include "model/layers/attention.h"
#include "model/layers/mlp.h"
#include "model/layers/pieces.h"

namespace nibble {
namespace {

// One block over the rows of one piece.
class Block {
 public:
  Block(const LayerContext& context, const Batch& batch, const Piece& piece, ScratchKvs& scratch)
      : context_(context),
        batch_(batch),
        piece_(piece),
        scratch_(scratch),
        chain_(context.backend),
        normed_(context.backend, piece.rows, context.spec.hidden),
        result_(context.backend, adds_in_place() ? 0 : piece.rows, context.spec.hidden) {}

  // h is [piece.rows, hidden].
  void run(float* h) {
    switch (context_.spec.residual) {
      case ResidualForm::kPre:
        return pre(h);
      case ResidualForm::kPreNormed:
        return pre_normed(h);
      case ResidualForm::kPost:
        return post(h);
      case ResidualForm::kSandwich:
        return sandwich(h);
      case ResidualForm::kParallel:
        return parallel(h);
    }
  }

 private:
  // Forms in which nothing comes between a half of the block and its addition to the residual: the
  // last linear layer of that half adds.
  bool adds_in_place() const {
    const ResidualForm form = context_.spec.residual;
    return form == ResidualForm::kPre || form == ResidualForm::kPreNormed ||
           form == ResidualForm::kPost;
  }

  void pre(float* h) {
    chain_norm(context_.weights.attn_norm, h);
    attention(normed_.data(), {h, true});
    chain_norm(context_.weights.mlp_norm, h);
    mlp(normed_.data(), {h, true});
  }

  void pre_normed(float* h) {
    norm(context_.weights.attn_norm, h);
    attention(h, {h, true});
    norm(context_.weights.mlp_norm, h);
    mlp(h, {h, true});
  }

  void post(float* h) {
    attention(h, {h, true});
    norm(context_.weights.attn_norm, h);
    mlp(h, {h, true});
    norm(context_.weights.mlp_norm, h);
  }

  void sandwich(float* h) {
    chain_norm(context_.weights.attn_norm, h);
    attention(normed_.data(), {result_.data()});
    norm(context_.weights.attn_post_norm, result_.data());
    add(h);
    chain_norm(context_.weights.mlp_norm, h);
    mlp(normed_.data(), {result_.data()});
    norm(context_.weights.mlp_post_norm, result_.data());
    add(h);
  }

  void parallel(float* h) {
    chain_norm(context_.weights.attn_norm, h);
    attention(normed_.data(), {result_.data()});
    chain_norm(context_.weights.mlp_norm, h);
    chain_.run();  // before h changes
    add(h);
    mlp(normed_.data(), {result_.data()});
    add(h);
  }

  NormArgs norm_of(const Norm& weights, const float* x, float* y) const {
    return norm_args(context_.spec.norm, weights, x, piece_.rows, context_.spec.hidden, y);
  }
  // In place.
  void norm(const Norm& weights, float* x) { context_.backend.run(norm_of(weights, x, x)); }
  // Into normed_, for the half of the block that reads it alone.
  void chain_norm(const Norm& weights, const float* h) {
    chain_.add(norm_of(weights, h, normed_.data()));
  }
  void attention(const float* x, Output out) {
    run_attention(context_, batch_, piece_, scratch_, chain_, x, out);
  }
  void mlp(const float* x, Output out) { run_mlp(context_, chain_, x, piece_.rows, out); }
  void add(float* h) {
    run_add(result_.data(), piece_.rows * context_.spec.hidden, h, context_.backend);
  }

  const LayerContext& context_;
  const Batch& batch_;
  const Piece& piece_;
  ScratchKvs& scratch_;
  OpChain chain_;
  Rows normed_;
  Rows result_;
};

void check_ids(const ModelSpec& spec, const Batch& batch) {
  const std::int64_t known_there = batch.chosen != nullptr ? batch.chosen_count : 0;
  for (const std::int32_t id : batch.ids) {
    if (id < -known_there || id >= spec.vocab) {
      fail(ErrorKind::kUsage, "token {} is outside the vocabulary of {}", id, spec.vocab);
    }
  }
}

std::vector<std::int32_t> position_rows(const ModelSpec& spec, const Batch& batch) {
  std::vector<std::int32_t> rows;
  rows.reserve(batch.ids.size());
  for (const Batch::Sequence& sequence : batch.sequences) {
    const std::int64_t first = sequence.first_position + spec.position_offset;
    if (first + sequence.rows > spec.learned_positions) {
      fail(ErrorKind::kUsage, "{} tokens, but the model has learned {} positions",
           sequence.first_position + sequence.rows, spec.learned_positions - spec.position_offset);
    }
    for (std::int64_t t = 0; t < sequence.rows; ++t) {
      rows.push_back(static_cast<std::int32_t>(first + t));
    }
  }
  return rows;
}

void add_rows_of(const QuantTensor& table, std::span<const std::int32_t> rows, Backend& backend,
                 float* hidden) {
  EmbedArgs args;
  args.table = &table;
  args.ids = rows;
  args.out = hidden;
  args.accumulate = true;
  backend.run(args);
}

}  // namespace

void run_embedding(const ModelSpec& spec, const EmbeddingWeights& weights, const Batch& batch,
                   Backend& backend, float* hidden) {
  check_batch(spec, batch);
  check_ids(spec, batch);
  EmbedArgs args;
  args.table = &weights.table;
  args.chosen = batch.chosen;
  args.scale = spec.embed_scale;
  if (weights.project_in.exists()) {
    for (std::int64_t begin = 0; begin < batch.rows(); begin += kPieceRows) {
      const std::int64_t rows = std::min(kPieceRows, batch.rows() - begin);
      Rows narrow(backend, rows, spec.embed_dim);
      args.ids = std::span(batch.ids).subspan(static_cast<std::size_t>(begin),
                                              static_cast<std::size_t>(rows));
      args.out = narrow.data();
      backend.run(args);
      run_linear(weights.project_in, narrow.data(), rows, {hidden + begin * spec.hidden}, backend);
    }
  } else {
    args.ids = batch.ids;
    args.out = hidden;
    backend.run(args);
  }
  if (spec.token_types > 0) {
    const std::vector<std::int32_t> zeros(batch.ids.size(), 0);
    add_rows_of(weights.token_types, zeros, backend, hidden);
  }
  if (spec.learned_positions > 0) {
    add_rows_of(weights.positions, position_rows(spec, batch), backend, hidden);
  }
  if (spec.embed_norm) {
    run_norm(*spec.embed_norm, weights.norm, hidden, batch.rows(), spec.hidden, hidden, backend);
  }
}

void run_layer(const ModelSpec& spec, std::int64_t layer, const LayerWeights& weights,
               const Batch& batch, Backend& backend, float* hidden, SiteObserver* observer) {
  check_batch(spec, batch);
  const LayerContext context{spec, layer, weights, backend, observer};
  ScratchKvs scratch;
  for (const Piece& piece : cut_into_pieces(batch, spec.attention.causal)) {
    Block(context, batch, piece, scratch).run(hidden + piece.begin * spec.hidden);
  }
}

void run_head(const ModelSpec& spec, const HeadWeights& weights, const float* hidden,
              std::int64_t rows, Backend& backend, float* logits) {
  for (std::int64_t begin = 0; begin < rows; begin += kPieceRows) {
    const std::int64_t count = std::min(kPieceRows, rows - begin);
    const float* x = hidden + begin * spec.hidden;
    float* y = logits + begin * spec.vocab;
    OpChain chain(backend);
    Rows normed(backend, spec.final_norm ? count : 0, spec.hidden);
    if (spec.final_norm) {
      chain.add(
          norm_args(*spec.final_norm, weights.final_norm, x, count, spec.hidden, normed.data()));
      x = normed.data();
    }
    Rows narrow(backend, weights.project_out.exists() ? count : 0, spec.embed_dim);
    if (weights.project_out.exists()) {
      chain.add({{weights.project_out, {narrow.data()}}}, x, count);
      chain.run();
      x = narrow.data();
    }
    chain.add({{weights.head, {y}}}, x, count);
    chain.run();
    if (spec.logit_softcap > 0) {
      ActivationArgs cap;
      cap.kind = Activation::kTanh;
      cap.softcap = spec.logit_softcap;
      cap.x = cap.y = y;
      cap.rows = count;
      cap.cols = cap.x_stride = cap.y_stride = spec.vocab;
      backend.run(cap);
    }
  }
}

}  // namespace nibble
