#include <algorithm>

#include "base/error.h"
#include "checkpoint/input_scales.h"
#include "quantize/bytes.h"
#include "quantize/layer_solver.h"
#include "quantize/passes.h"

namespace nibble {
namespace {

// [rows, cols] float32 as [cols, rows].
std::vector<float> transposed(const float* w, std::int64_t rows, std::int64_t cols) {
  std::vector<float> result(static_cast<std::size_t>(rows * cols));
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t col = 0; col < cols; ++col) {
      result[static_cast<std::size_t>(col * rows + row)] = w[row * cols + col];
    }
  }
  return result;
}

class LayerWriter {
 public:
  LayerWriter(const Job& job, ShardedWriter& writer) : job_(job), writer_(writer) {}

  LayerReport write(std::int64_t layer, LayerWeights& weights, const LayerStatistics& statistics,
                    const LayerHistograms& histograms, const std::vector<SolvedLinear>& solved) {
    LayerReport report{layer, {}};
    for (const SolvedLinear& linear : solved) {
      write_linear(linear);
      report.modules.push_back(linear.report);
    }
    write_input_scales(weights, statistics, histograms, solved);
    for (const Norm* norm : weights.norms()) write_norm(*norm);
    if (weights.router.exists()) write_plain(weights.router);
    return report;
  }

 private:
  // As the solver chose it, or of what calibration saw at the layer's input.
  void write_input_scales(LayerWeights& weights, const LayerStatistics& statistics,
                          const LayerHistograms& histograms,
                          const std::vector<SolvedLinear>& solved) {
    if (job_.plan.static_inputs() == nullptr) return;
    const InputRanges ranges{statistics, job_.backend.pool(), &histograms, &job_.calibration};
    for (const auto& [linear, name] : statistics_names(sites(job_.spec, weights))) {
      const auto chosen = std::ranges::find(solved, linear, &SolvedLinear::linear);
      const ActivationFormatPtr format =
          chosen != solved.end() && chosen->activations != nullptr
              ? chosen->activations
              : input_format(job_.plan.find(linear->module), name, ranges);
      if (format == nullptr || format->fixed().empty()) continue;
      for (const auto& [tensor, values] : input_scales(linear->module, *format)) {
        writer_.write(tensor, values);
      }
    }
  }

  void write_linear(const SolvedLinear& solved) {
    const Linear& linear = *solved.linear;
    if (!linear.bias.empty()) write_vector(linear.module + ".bias", linear.bias);
    if (solved.stored.format->is_float()) {
      write_plain(linear);
      return;
    }
    for (const auto& [name, tensor] : job_.plan.encoding->encode(linear.module, solved.stored)) {
      writer_.write(name, tensor);
    }
  }

  // A matrix that stays float, in its planned type and the layout of the file.
  void write_plain(const Linear& linear) {
    const QuantTensor& weight = linear.weight.canonical;
    const float* w = weight.planes[0].data<float>();
    const std::string name = linear.module + ".weight";
    const DType type = job_.plan.stored_type(name);
    if (job_.spec.transposed_linears) {
      const std::vector<float> turned = transposed(w, weight.rows, weight.cols);
      writer_.write(name, from_float(turned.data(), type, {weight.cols, weight.rows}));
    } else {
      writer_.write(name, from_float(w, type, {weight.rows, weight.cols}));
    }
  }

  void write_norm(const Norm& norm) {
    const std::string weight = stored_norm_weight(job_.source, norm.module);
    const std::string bias = stored_norm_bias(job_.source, norm.module);
    if (!weight.empty() && !norm.weight.empty()) write_vector(weight, norm.weight);
    if (!bias.empty() && !norm.bias.empty()) write_vector(bias, norm.bias);
  }

  void write_vector(const std::string& name, const Tensor& values) {
    writer_.write(name,
                  from_float(values.data<float>(), job_.plan.stored_type(name), values.shape()));
  }

  const Job& job_;
  ShardedWriter& writer_;
};

// A matrix outside the blocks as it is stored.
QuantTensor encode_outside(const Job& job, const PlannedModule& module,
                           const std::vector<float>& w) {
  const Recipe& recipe = job.options.recipe;
  const Codec codec = job.backend.codec();
  if (module.format->is_float() || !recipe.solver().algorithm->solves_outside) {
    return module.format->encode(w.data(), module.rows, module.cols, codec);
  }
  Linear linear;
  linear.module = module.module;
  linear.weight = {dense(from_float(w.data(), DType::kF32, {module.rows, module.cols})), nullptr};
  return solve_linear(recipe, {module.format}, linear, {}, nullptr, codec, job.runner).stored;
}

// Embedding and head, where the plan changes their format; round to nearest, unless the solver
// takes what it knows no inputs of.
void write_outside(const Job& job, ShardedWriter& writer, OutputPlan& stored_plan) {
  for (const PlannedModule& module : job.plan.modules) {
    if (module.layer >= 0) continue;
    const QuantTensor source = job.source.linear(module.module);
    std::vector<float> w(static_cast<std::size_t>(module.rows * module.cols));
    const Codec codec = job.backend.codec();
    decode_all(source, w.data(), codec);
    const QuantTensor stored = encode_outside(job, module, w);
    if (module.format->is_float()) {
      writer.write(module.module + ".weight", stored.planes[0]);
      continue;
    }
    stored_plan.adopt(module.module, {stored.format});
    for (const auto& [name, tensor] : job.plan.encoding->encode(module.module, stored)) {
      writer.write(name, tensor);
    }
  }
}

// The formats that solvers chose, as the layers' reports have them.
void adopt_choices(const std::vector<LayerReport>& layers, OutputPlan& plan) {
  for (const LayerReport& layer : layers) {
    for (const ModuleReport& module : layer.modules) {
      const PlannedModule& planned = plan.find(module.module);
      const std::string inputs = planned.activations ? planned.activations->name() : "";
      if (module.format == planned.format->name() && module.activations == inputs) continue;
      plan.adopt(
          module.module,
          {parse_weight_format(module.format),
           module.activations.empty() ? nullptr : parse_activation_format(module.activations)});
    }
  }
}

std::string done_name(std::int64_t layer) { return fmt::format("written.{}", layer); }

std::string serialize(const LayerReport& report) {
  ByteWriter writer;
  writer.put(report.layer);
  writer.put(static_cast<std::uint64_t>(report.modules.size()));
  for (const ModuleReport& module : report.modules) {
    writer.put_text(module.module);
    writer.put_text(module.format);
    writer.put_text(module.activations);
    writer.put(module.rows);
    writer.put(module.cols);
    writer.put(module.weight_error);
    writer.put(static_cast<std::uint8_t>(module.output_error.has_value()));
    writer.put(module.output_error.value_or(0));
  }
  return writer.take();
}

LayerReport deserialize_report(const std::string& bytes) {
  ByteReader reader(bytes, "report of a written layer");
  LayerReport report;
  report.layer = reader.get<std::int64_t>();
  for (auto count = reader.get<std::uint64_t>(); count > 0; --count) {
    ModuleReport module;
    module.module = reader.get_text();
    module.format = reader.get_text();
    module.activations = reader.get_text();
    module.rows = reader.get<std::int64_t>();
    module.cols = reader.get<std::int64_t>();
    module.weight_error = reader.get<double>();
    const bool has_output_error = reader.get<std::uint8_t>() != 0;
    const auto output_error = reader.get<double>();
    if (has_output_error) module.output_error = output_error;
    report.modules.push_back(std::move(module));
  }
  reader.expect_end();
  return report;
}

}  // namespace

OutputPlan run_write_pass(const Job& job, const Calibration& calibration, const RecipePoint& point,
                          ShardedWriter& writer) {
  const std::int64_t layers = job.spec.layers;
  LayerWriter layer_writer(job, writer);
  std::int64_t done = 0;
  while (done < layers && job.journal.has(done_name(done))) ++done;
  LayerSolver solver(job, done);
  for (std::int64_t layer = 0; layer < solver.first_layer(); ++layer) {
    job.report.layers.push_back(deserialize_report(job.journal.get(done_name(layer))));
  }
  for (std::int64_t layer = solver.first_layer(); layer < layers; ++layer) {
    progress(job.options.progress, "quantize", layer, layers);
    LayerWeights weights = load_layer_f32(job.spec, layer, job.source, job.backend);
    check_finite(weights, job.backend.pool());
    LayerStatistics statistics;
    if (!calibration.layers.empty()) {
      statistics = calibration.layers[static_cast<std::size_t>(layer)];
    }
    const std::vector<SolvedLinear> solved = solver.solve(layer, point, statistics, weights);
    LayerReport report =
        layer_writer.write(layer, weights, statistics, solver.histograms(), solved);
    writer.sync();
    job.journal.put(done_name(layer), serialize(report));
    solver.save(layer);
    job.report.layers.push_back(std::move(report));
  }
  progress(job.options.progress, "quantize", layers, layers);
  for (const std::string& name : job.plan.copied) writer.write(name, job.source.tensor(name));
  OutputPlan stored = job.plan;
  adopt_choices(job.report.layers, stored);
  write_outside(job, writer, stored);
  return stored;
}

}  // namespace nibble
