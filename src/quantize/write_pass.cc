#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/error.h"
#include "quantize/bytes.h"
#include "quantize/passes.h"

namespace nibble {
namespace {

// The two relative errors of a stored weight against the one that was quantized.
ModuleReport measure(const PlannedModule& module, const float* w, const QuantTensor& stored,
                     std::span<const float> second_moment) {
  ModuleReport report{module.module, module.format->name(), module.rows, module.cols, 0, {}};
  std::vector<float> decoded(static_cast<std::size_t>(module.cols));
  double error = 0, norm = 0, output_error = 0, output_norm = 0;
  for (std::int64_t row = 0; row < module.rows; ++row) {
    stored.format->decode(stored, row, 0, module.cols, decoded.data());
    for (std::int64_t j = 0; j < module.cols; ++j) {
      const double value = static_cast<double>(w[row * module.cols + j]);
      const double d = value - static_cast<double>(decoded[static_cast<std::size_t>(j)]);
      error += d * d;
      norm += value * value;
      if (second_moment.empty()) continue;
      const double e = static_cast<double>(second_moment[static_cast<std::size_t>(j)]);
      output_error += e * d * d;
      output_norm += e * value * value;
    }
  }
  report.weight_error = norm > 0 ? std::sqrt(error / norm) : 0;
  if (!second_moment.empty()) {
    report.output_error = output_norm > 0 ? std::sqrt(output_error / output_norm) : 0;
  }
  return report;
}

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

  LayerReport write(std::int64_t layer, LayerWeights& weights, const LayerStatistics& statistics) {
    const auto moments = second_moments(job_.spec, weights, statistics);
    const std::vector<Linear*> linears = weights.linears();
    std::vector<std::vector<AffineParams>> params(linears.size());
    for (std::size_t i = 0; i < linears.size(); ++i) {
      const Format& format = *job_.plan.find(linears[i]->module).format;
      if (!format.is_affine()) continue;
      params[i] = solve_linear(job_.options.recipe, format, *linears[i], moments.at(linears[i]),
                               job_.backend.pool());
    }
    LayerReport report{layer, std::vector<ModuleReport>(linears.size())};
    const auto count = static_cast<std::int64_t>(linears.size());
    job_.backend.pool().parallel_for(count, 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        report.modules[i] = write_linear(*linears[i], params[i], moments.at(linears[i]));
      }
    });
    for (const Norm* norm : weights.norms()) write_norm(*norm);
    if (weights.router.exists()) write_plain(weights.router);
    return report;
  }

 private:
  ModuleReport write_linear(const Linear& linear, const std::vector<AffineParams>& params,
                            std::span<const float> second_moment) {
    const PlannedModule& module = job_.plan.find(linear.module);
    const float* w = linear.weight.canonical.planes[0].data<float>();
    if (!linear.bias.empty()) write_vector(linear.module + ".bias", linear.bias);
    if (module.format->is_float()) {
      const QuantTensor stored = module.format->encode(w, module.rows, module.cols);
      write_plain(linear);
      return measure(module, w, stored, second_moment);
    }
    const QuantTensor stored =
        module.format->is_affine()
            ? affine_encode(module.format, w, module.rows, module.cols, params)
            : encode_linear(job_.options.recipe, *module.format, linear, second_moment);
    for (const auto& [name, tensor] : job_.plan.encoding->encode(linear.module, stored)) {
      writer_.write(name, tensor);
    }
    return measure(module, w, stored, second_moment);
  }

  // A matrix that stays float, in its planned type and the layout of the file.
  void write_plain(const Linear& linear) {
    const QuantTensor& weight = linear.weight.canonical;
    const float* w = weight.planes[0].data<float>();
    const std::string name = linear.module + ".weight";
    const DType type = planned_type(name);
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
    writer_.write(name, from_float(values.data<float>(), planned_type(name), values.shape()));
  }

  DType planned_type(const std::string& name) const {
    const auto found = std::ranges::find(job_.plan.tensors, name, &StoredTensor::name);
    NIBBLE_CHECK(found != job_.plan.tensors.end());
    return found->dtype;
  }

  const Job& job_;
  ShardedWriter& writer_;
};

// Embedding and head, where the plan changes their format; round to nearest, as no solver sees
// their inputs.
void write_outside(const Job& job, ShardedWriter& writer) {
  for (const PlannedModule& module : job.plan.modules) {
    if (module.layer >= 0) continue;
    const QuantTensor source = job.source.linear(module.module);
    std::vector<float> w(static_cast<std::size_t>(module.rows * module.cols));
    decode_all(source, w.data());
    const QuantTensor stored = module.format->encode(w.data(), module.rows, module.cols);
    if (module.format->is_float()) {
      writer.write(module.module + ".weight", stored.planes[0]);
      continue;
    }
    for (const auto& [name, tensor] : job.plan.encoding->encode(module.module, stored)) {
      writer.write(name, tensor);
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

void run_write_pass(const Job& job, const Calibration& calibration, const RecipePoint& point,
                    ShardedWriter& writer) {
  const std::int64_t layers = job.spec.layers;
  LayerWriter layer_writer(job, writer);
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    progress(job.options.progress, "quantize", layer, layers);
    if (job.journal.has(done_name(layer))) {
      job.report.layers.push_back(deserialize_report(job.journal.get(done_name(layer))));
      continue;
    }
    LayerWeights weights = load_layer_f32(job.spec, layer, job.source, job.backend);
    check_finite(weights);
    LayerStatistics statistics;
    if (!calibration.layers.empty()) {
      statistics = calibration.layers[static_cast<std::size_t>(layer)];
    }
    transform_layer(job.spec, job.options.recipe, point, job.norm_type(), weights, statistics);
    LayerReport report = layer_writer.write(layer, weights, statistics);
    writer.sync();
    job.journal.put(done_name(layer), serialize(report));
    job.report.layers.push_back(std::move(report));
  }
  progress(job.options.progress, "quantize", layers, layers);
  for (const std::string& name : job.plan.copied) writer.write(name, job.source.tensor(name));
  write_outside(job, writer);
}

}  // namespace nibble
