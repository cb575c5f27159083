#include "quantize/quantize.h"

#include <chrono>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/input_transforms.h"
#include "checkpoint/staging.h"
#include "model/arch.h"
#include "quantize/passes.h"
#include "quantize/setup.h"
#include "quantize/texts.h"

namespace nibble {
namespace {

// What inputs are multiplied by, which a model without quantized weights says in our own way.
void add_input_transforms(const Job& job, Json& quantization) {
  std::map<std::string, std::int64_t> blocks;
  std::vector<std::string> all;
  for (const PlannedModule& module : job.plan.modules) {
    all.push_back(module.module);
    const std::int64_t block = job.source.input_hadamard(module.module);
    if (block != 0) blocks[module.module] = block;
  }
  if (blocks.empty()) return;
  if (quantization.is_null()) quantization = nibble_encoding().quantization_config({}, {});
  quantization["transform_config"] = transform_config(blocks, all);
}

// The last files of the output; the shards are complete before.
void finish_output(const Job& job, const OutputPlan& stored, ShardedWriter& writer,
                   const std::filesystem::path& directory) {
  writer.finish();
  copy_companions(job.source, directory);
  Json quantization;
  if (stored.encoding != nullptr) {
    quantization = stored.encoding->quantization_config(
        stored.quantized(), stored.plain(job.spec, job.source, job.backend));
  }
  add_input_transforms(job, quantization);
  write_config(directory, job.source.config(), quantization);
}

struct Calibrated {
  Calibration calibration;
  RecipePoint point;
};

// The formats of the output, or of the menu that they are chosen from, may need statistics.
Calibrated calibrate(const Job& job, const std::optional<FormatMenu>& menu) {
  Calibrated result;
  const bool by_formats = menu ? std::ranges::any_of(menu->plans, &OutputPlan::needs_statistics)
                               : job.plan.needs_statistics();
  if (job.options.recipe.needs_statistics() || by_formats) {
    result.calibration = run_statistics_pass(job);
  }
  result.point = run_search(job, result.calibration);
  return result;
}

// Measures the formats of the menu, and chooses among them unless that is all that was asked for.
void choose_formats(const Job& job, Calibrated& calibrated, const FormatMenu& menu, Setup& setup,
                    const std::filesystem::path& state) {
  const MixedOptions& mixed = job.options.mixed;
  for (const OutputPlan& plan : menu.plans) {
    for (const std::string& note : plan.notes) job.note(note);
  }
  Measurements measurements(
      mixed.measurements.empty() ? state / "measurements.json" : mixed.measurements,
      setup.measurements_key());
  auto& reference = calibrated.calibration.reference;
  const bool measures = !is_complete(menu, measurements) || mixed.max_kl > 0;
  if (measures && reference == nullptr) reference = source_output(job);
  run_measure_pass(job, calibrated.calibration, calibrated.point, menu, measurements);
  MixedReport& report = job.report.mixed.emplace();
  report.tokens = static_cast<std::int64_t>(job.windows.search.size());
  for (const FusedGroup& group : menu.groups) {
    for (const std::string& name : menu.names) {
      report.measured.push_back({group.layer, group.name, name,
                                 measurements.find(group.layer, group.name, name).value()});
    }
  }
  if (mixed.measure_only) return;
  setup.choose(choose_formats(job, calibrated.calibration, calibrated.point, menu, measurements,
                              [&](const ModuleFormats& chosen) { return setup.plan_of(chosen); }));
}

// Writes into the staged directory.
void write_output(const Job& job, const Calibrated& calibrated,
                  const std::filesystem::path& directory) {
  ShardedWriter writer(directory, job.plan.tensors, job.options.max_shard_bytes);
  const OutputPlan stored = run_write_pass(job, calibrated.calibration, calibrated.point, writer);
  finish_output(job, stored, writer, directory);
}

void describe(const OutputPlan& plan, const CalibrationWindows& windows, QuantizeReport& report) {
  report.format = plan.format;
  report.convention = plan.encoding != nullptr ? plan.encoding->convention() : "hf";
  report.bits_per_weight = plan.bits_per_weight;
  report.bits_per_weight_total = plan.bits_per_weight_total;
  report.output_bytes = plan.bytes;
  report.calibration_tokens = windows.tokens();
}

class Run {
 public:
  Run(const QuantizeOptions& options, Backend& backend, Backend& runner, QuantizeReport& report)
      : options_(options),
        backend_(backend),
        runner_(runner),
        report_(report),
        setup_(options, backend, runner) {}

  void execute() {
    report_.recipe = options_.recipe.name;
    describe(setup_.plan(), setup_.windows(), report_);
    const bool measures = options_.mixed.measure_only;
    // What is measured is kept in its file, so a run that was interrupted there just goes on.
    StagedDirectory staged(
        measures ? options_.mixed.measurements.string() + ".run" : options_.output.string(),
        setup_.fingerprint(), options_.resume || measures);
    Journal journal(staged.state_path() / "state", options_.on_saved, options_.save_seconds);
    const Job job{options_,      backend_,      runner_,          setup_.source(),
                  setup_.spec(), setup_.plan(), setup_.windows(), setup_.calibration(),
                  journal,       report_};
    for (const std::string& message : setup_.notes()) job.note(message);
    std::optional<FormatMenu> menu;
    if (options_.mixed.enabled()) menu = setup_.format_menu();
    Calibrated calibrated = calibrate(job, menu);
    if (menu) {
      choose_formats(job, calibrated, *menu, setup_, staged.state_path());
      describe(setup_.plan(), setup_.windows(), report_);
    }
    calibrated.calibration.reference.reset();
    if (measures) return;
    write_output(job, calibrated, staged.path());
    if (setup_.verifies()) {
      report_.verify = verify(staged.path(), options_.source, setup_.verification_text(),
                              options_.verify, runner_, options_.progress);
    }
    staged.commit();
  }

 private:
  const QuantizeOptions& options_;
  Backend& backend_;
  Backend& runner_;
  QuantizeReport& report_;
  Setup setup_;
};

}  // namespace

void Job::note(const std::string& message) const {
  log(options.log, LogLevel::kWarning, message);
  report.notes.push_back(message);
}

DType Job::norm_type() const {
  LayerWeights weights = load_layer(spec, 0, source, backend);
  for (const Norm* norm : weights.norms()) {
    const std::string name = stored_norm_weight(source, norm->module);
    if (!name.empty()) return source.tensor(name).dtype();
  }
  return DType::kF32;
}

TransformContext transform_context(const Job& job) {
  return {job.spec, job.options.recipe, job.plan, job.norm_type(), job.backend.pool()};
}

QuantizeReport quantize(const QuantizeOptions& options, Backend& backend, QuantizeReport* report) {
  return quantize(options, backend, backend, report);
}

QuantizeReport quantize(const QuantizeOptions& options, Backend& backend, Backend& runner,
                        QuantizeReport* report) {
  QuantizeReport own;
  QuantizeReport& result = report != nullptr ? *report : own;
  result = {};
  const auto start = std::chrono::steady_clock::now();
  const PeakMemoryMeter meter;
  const auto measure = [&] {
    result.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    result.peak_anon_bytes = meter.peak_bytes();
  };
  try {
    Run(options, backend, runner, result).execute();
  } catch (...) {
    measure();
    throw;
  }
  measure();
  if (result.verify) require_quality(options.verify, *result.verify, options.output);
  return result;
}

}  // namespace nibble
