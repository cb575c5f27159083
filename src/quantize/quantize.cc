#include "quantize/quantize.h"

#include <chrono>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/staging.h"
#include "model/arch.h"
#include "quantize/passes.h"
#include "quantize/setup.h"
#include "quantize/texts.h"

namespace nibble {
namespace {

// The last files of the output; the shards are complete before.
void finish_output(const Job& job, ShardedWriter& writer, const std::filesystem::path& directory) {
  writer.finish();
  copy_companions(job.source, directory);
  Json quantization;
  if (job.plan.encoding != nullptr) {
    quantization = job.plan.encoding->quantization_config(
        job.plan.quantized(), job.plan.plain(job.spec, job.source, job.backend));
  }
  write_config(directory, job.source.config(), quantization);
}

// Calibrates, searches and writes into the staged directory.
void run_passes(const Job& job, const std::filesystem::path& directory) {
  Calibration calibration;
  if (job.options.recipe.needs_statistics() || job.plan.has_static_inputs()) {
    calibration = run_statistics_pass(job);
  }
  const RecipePoint point = run_search(job, calibration);
  calibration.reference = {};
  ShardedWriter writer(directory, job.plan.tensors, job.options.max_shard_bytes);
  run_write_pass(job, calibration, point, writer);
  finish_output(job, writer, directory);
}

void check_quality(const VerifyOptions& options, const VerifyResult& result,
                   const std::filesystem::path& output) {
  if (result.mean_kl <= options.fail_above_kl) return;
  fail(ErrorKind::kQuality,
       "{}: the mean KL divergence of {:.4f} nats is above {}; the output is complete all the same",
       output.string(), result.mean_kl, options.fail_above_kl);
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
  Run(const QuantizeOptions& options, Backend& backend, QuantizeReport& report)
      : options_(options), backend_(backend), report_(report), setup_(options, backend) {}

  void execute() {
    report_.recipe = options_.recipe.name;
    describe(setup_.plan(), setup_.windows(), report_);
    StagedDirectory staged(options_.output, setup_.fingerprint(), options_.resume);
    Journal journal(staged.state_path() / "state", options_.on_saved);
    const Job job{options_,      backend_,         setup_.source(), setup_.spec(),
                  setup_.plan(), setup_.windows(), journal,         report_};
    for (const std::string& message : setup_.notes()) job.note(message);
    run_passes(job, staged.path());
    if (setup_.verifies()) {
      report_.verify = verify(staged.path(), options_.source, setup_.verification_text(),
                              options_.verify, backend_, options_.progress);
    }
    staged.commit();
  }

 private:
  const QuantizeOptions& options_;
  Backend& backend_;
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
    Run(options, backend, result).execute();
  } catch (...) {
    measure();
    throw;
  }
  measure();
  if (result.verify) check_quality(options.verify, *result.verify, options.output);
  return result;
}

}  // namespace nibble
