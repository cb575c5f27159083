// The ops that are bound by memory: one kernel each, which takes everything.
#include "backends/cuda/kernels/row_ops.h"

#include "backends/cuda/impls.h"
#include "backends/cuda/kernels/argmax.h"
#include "backends/cuda/kernels/columns.h"
#include "backends/cuda/kernels/decode_weight.h"
#include "backends/cuda/kernels/hadamard.h"
#include "backends/cuda/kernels/sample.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/row_launches.h"
#include "backends/cuda/weight.h"
#include "ops/reference/reference.h"

namespace nibble::cuda {
namespace {

template <class Args, void (*kRun)(const Args&, ExecContext&)>
ImplList<Args> only() {
  static constexpr Impl<Args> kImpls[] = {
      {"cuda", [](const Args&, const DeviceCaps&) { return Support::yes(); }, kRun}};
  return kImpls;
}

void embed(const EmbedArgs& args, ExecContext& context) {
  EmbedRows rows;
  rows.table = planes_of(*args.table);
  rows.ids = context.queue->put(args.ids);
  rows.chosen = args.chosen;
  rows.count = static_cast<std::int64_t>(args.ids.size());
  rows.out = args.out;
  rows.scale = args.scale;
  rows.accumulate = args.accumulate;
  context.queue->launch("embed", rows, embed_rows);
}

void norm(const NormArgs& args, ExecContext& context) {
  context.queue->launch("norm", rows_of(args), norm_rows);
}

void rope(const RopeArgs& args, ExecContext& context) {
  RopeRows rows;
  rows.data = args.x.data;
  rows.inv_freq = context.queue->put(args.inv_freq);
  rows.positions = context.queue->put(args.positions);
  rows.row_stride = args.x.row_stride;
  rows.head_stride = args.x.head_stride;
  rows.rows = args.rows;
  rows.heads = args.heads;
  rows.rotary_dim = args.rotary_dim;
  rows.scale = args.scale;
  rows.interleaved = args.interleaved;
  context.queue->launch("rope", rows, rope_rows);
}

Support hadamard_supports(const HadamardArgs& args, const DeviceCaps&) {
  const char* const why = hadamard_unsupported(args.cols);
  return why == nullptr ? Support::yes() : Support::no(why);
}

void hadamard(const HadamardArgs& args, ExecContext& context) {
  context.queue->launch("hadamard", HadamardRows{args.x, args.rows, args.cols}, hadamard_rows);
}

void activation(const ActivationArgs& args, ExecContext& context) {
  context.queue->launch("activation", rows_of(args), activate_rows);
}

void add(const AddArgs& args, ExecContext& context) {
  context.queue->launch("add", AddValues{args.x, args.y, args.count, args.scale}, add_values);
}

void gather(const GatherRowsArgs& args, ExecContext& context) {
  GatherRows rows;
  rows.x = args.x;
  rows.index = context.queue->put(args.index);
  rows.out = args.out;
  rows.count = static_cast<std::int64_t>(args.index.size());
  rows.cols = args.cols;
  context.queue->launch("gather_rows", rows, gather_rows);
}

void scatter_add(const ScatterAddRowsArgs& args, ExecContext& context) {
  ScatterAddRows rows;
  rows.x = args.x;
  rows.index = context.queue->put(args.index);
  rows.weights = context.queue->put(args.weights);
  rows.y = args.y;
  rows.count = static_cast<std::int64_t>(args.index.size());
  rows.cols = args.cols;
  context.queue->launch("scatter_add_rows", rows, scatter_add_rows);
}

void transpose(const TransposeArgs& args, ExecContext& context) {
  context.queue->launch("transpose", TransposeRows{args.x, args.y, args.rows, args.cols},
                        transpose_rows);
}

void column_sums(const ColumnSumsArgs& args, ExecContext& context) {
  ColumnSums sums;
  sums.x = args.x;
  sums.max_abs = args.max_abs;
  sums.sum_squares = args.sum_squares;
  sums.sum_abs = args.sum_abs;
  sums.rows = args.rows;
  sums.cols = args.cols;
  context.queue->launch("column_sums", sums, nibble::cuda::column_sums);
}

void scale(const ScaleArgs& args, ExecContext& context) {
  ScaleMatrix matrix;
  matrix.x = args.x;
  matrix.factors = args.factors;
  matrix.divisors = args.divisors;
  matrix.y = args.y;
  matrix.rows = args.rows;
  matrix.cols = args.cols;
  context.queue->launch("scale", matrix, scale_matrix);
}

Support argmax_supports(const ArgmaxArgs& args, const DeviceCaps&) {
  return args.rows < 65536 ? Support::yes() : Support::no("more than 65535 rows");
}

void argmax(const ArgmaxArgs& args, ExecContext& context) {
  ArgmaxRows rows;
  rows.x = args.x;
  rows.chosen = args.chosen;
  rows.rows = args.rows;
  rows.cols = args.cols;
  rows.best = static_cast<std::uint64_t*>(context.queue->workspace(
      static_cast<std::size_t>(args.rows) * kArgmaxParts * sizeof(std::uint64_t)));
  context.queue->launch("argmax", rows, argmax_rows);
}

Support sample_supports(const SampleArgs& args, const DeviceCaps&) {
  return args.cols <= kSampleMaxCols ? Support::yes() : Support::no("more than 4194304 columns");
}

void sample(const SampleArgs& args, ExecContext& context) {
  std::vector<DrawRule> rules;
  for (const TokenChoice& choice : args.choices) {
    DrawRule rule;
    rule.u = choice.u;
    rule.keep_below = choice.top_p < 1 ? 1.0 - static_cast<double>(choice.top_p) : 0;
    rule.has_min_p = choice.min_p > 0 ? 1 : 0;
    rule.log_min_p = rule.has_min_p != 0 ? std::log(static_cast<double>(choice.min_p)) : 0;
    rule.temperature = choice.temperature;
    rule.top_k = choice.top_k;
    rules.push_back(rule);
  }
  SampleRows rows;
  rows.x = args.x;
  rows.rules = context.queue->put(std::span<const DrawRule>(rules));
  rows.chosen = args.chosen;
  rows.rows = args.rows;
  rows.cols = args.cols;
  context.queue->launch("sample", rows, sample_rows);
}

// Which experts run is decided on the host, so the logits go there.
void moe_route(const MoeRouteArgs& args, ExecContext& context) {
  context.queue->on_host([&] {
    std::vector<float> logits(static_cast<std::size_t>(args.rows * args.experts));
    check(cudaMemcpyAsync(logits.data(), args.logits, logits.size() * sizeof(float),
                          cudaMemcpyDeviceToHost, context.queue->stream()),
          "copy from the card");
    check(cudaStreamSynchronize(context.queue->stream()), "device");
    MoeRouteArgs on_host = args;
    on_host.logits = logits.data();
    reference::moe_route(on_host, context);
  });
}

}  // namespace

NormRows rows_of(const NormArgs& args) {
  NormRows rows;
  rows.x = args.x;
  rows.weight = args.weight;
  rows.bias = args.bias;
  rows.y = args.y;
  rows.x_stride = args.x_stride;
  rows.y_stride = args.y_stride;
  rows.rows = args.rows;
  rows.cols = args.cols;
  rows.weight_offset = args.weight_offset;
  rows.eps = args.eps;
  rows.centred = args.kind == NormKind::kLayer;
  return rows;
}

ActivateRows rows_of(const ActivationArgs& args) {
  ActivateRows rows;
  rows.x = args.x;
  rows.multiplier = args.multiplier;
  rows.y = args.y;
  rows.x_stride = args.x_stride;
  rows.multiplier_stride = args.multiplier_stride;
  rows.y_stride = args.y_stride;
  rows.rows = args.rows;
  rows.cols = args.cols;
  rows.kind = static_cast<std::int32_t>(args.kind);
  rows.softcap = args.softcap;
  rows.limit = args.limit > 0 ? args.limit : INFINITY;
  rows.multiplier_offset = args.multiplier_offset;
  return rows;
}

ImplList<EmbedArgs> embed_impls() { return only<EmbedArgs, embed>(); }
ImplList<NormArgs> norm_impls() { return only<NormArgs, norm>(); }
ImplList<RopeArgs> rope_impls() { return only<RopeArgs, rope>(); }
ImplList<HadamardArgs> hadamard_impls() {
  static constexpr Impl<HadamardArgs> kImpls[] = {{"cuda", hadamard_supports, hadamard}};
  return kImpls;
}
ImplList<ActivationArgs> activation_impls() { return only<ActivationArgs, activation>(); }
ImplList<AddArgs> add_impls() { return only<AddArgs, add>(); }
ImplList<GatherRowsArgs> gather_rows_impls() { return only<GatherRowsArgs, gather>(); }
ImplList<ScatterAddRowsArgs> scatter_add_rows_impls() {
  return only<ScatterAddRowsArgs, scatter_add>();
}
ImplList<ArgmaxArgs> argmax_impls() {
  static constexpr Impl<ArgmaxArgs> kImpls[] = {{"cuda", argmax_supports, argmax}};
  return kImpls;
}
ImplList<SampleArgs> sample_impls() {
  static constexpr Impl<SampleArgs> kImpls[] = {{"cuda", sample_supports, sample}};
  return kImpls;
}
ImplList<TransposeArgs> transpose_impls() { return only<TransposeArgs, transpose>(); }
ImplList<ColumnSumsArgs> column_sums_impls() { return only<ColumnSumsArgs, column_sums>(); }
ImplList<ScaleArgs> scale_impls() { return only<ScaleArgs, scale>(); }
ImplList<MoeRouteArgs> moe_route_impls() { return only<MoeRouteArgs, moe_route>(); }

}  // namespace nibble::cuda
