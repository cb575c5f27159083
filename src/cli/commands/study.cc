#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "cli/command.h"
#include "cli/commands/study_commands.h"
#include "cli/study_output.h"
#include "eval/text.h"
#include "model/arch.h"
#include "runtime/session.h"
#include "study/bits.h"
#include "study/bits_report.h"
#include "study/block_error.h"
#include "study/tensors.h"

namespace nibble::cli {
namespace {

struct BitsOptions {
  std::string model;
  std::string text;
  std::vector<std::string> formats;
  std::vector<std::string> calibrators;
  CalibratorOptions calibration;
  std::vector<double> degrees{std::begin(kStudentDegrees), std::end(kStudentDegrees)};
  bool per_channel = false;
  std::int64_t tokens = 2048;
  std::int64_t context = 512;
  StudyFiles files;
};

// Everything chosen on the command line, and the rows so far.
struct BitsRun {
  std::vector<NamedFormat> formats;
  std::vector<Calibrator> calibrators;
  CalibratorOptions calibration;
  bool per_channel = false;
  ThreadPool pool;
  std::vector<BitsRow> rows;

  explicit BitsRun(int threads) : pool(threads) {}
};

std::vector<Calibrator> chosen_calibrators(const std::vector<std::string>& names) {
  std::vector<Calibrator> chosen;
  for (const std::string& name : names) {
    if (name == "all") return calibrators();
    chosen.push_back(find_calibrator(name));
  }
  return chosen;
}

// Runs body(i) for every i on the pool and appends what each gives, in order.
template <class Body>
void append_parallel(BitsRun& run, std::size_t count, const Body& body) {
  std::vector<std::vector<BitsRow>> parts(count);
  run.pool.parallel_for(
      static_cast<std::int64_t>(count), 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
          parts[i] = body(i);
        }
      });
  for (auto& part : parts) run.rows.insert(run.rows.end(), part.begin(), part.end());
}

void run_distributions(std::span<const double> degrees, BitsRun& run) {
  const auto analytic = study_distributions(degrees);
  append_parallel(run, analytic.size(), [&](std::size_t i) {
    const auto& [name, distribution] = analytic[i];
    return study_elements({"distribution", name, name}, *distribution, true);
  });
  const auto samples = sample_distributions();
  append_parallel(run, samples.size(), [&](std::size_t i) {
    const SampledValues& sample = samples[i];
    const BitsSource source{"distribution", sample.name, sample.name};
    auto rows = study_blocks(source, sample.values);
    const auto stored = study_formats(source, sample.values, sample.cols, run.formats);
    rows.insert(rows.end(), stored.begin(), stored.end());
    return rows;
  });
}

void run_tensors(BitsRun& run, const std::string& kind, const std::vector<TensorSample>& samples) {
  append_parallel(run, samples.size(), [&](std::size_t i) {
    const TensorSample& sample = samples[i];
    const BitsSource source{kind, sample.name, sample.group};
    const auto values = empirical_distribution(sample.values, sample.histogram.largest());
    if (deviation(*values) == 0) return std::vector<BitsRow>{};  // a constant has no accuracy
    auto rows = study_elements(source, *values, false);
    for (auto& more :
         {study_zero_points(source, *values),
          study_calibrators(source, *values, sample.histogram, run.calibrators, run.calibration),
          study_blocks(source, sample.values),
          study_formats(source, sample.values, sample.cols, run.formats)}) {
      rows.insert(rows.end(), more.begin(), more.end());
    }
    if (run.per_channel) {
      const auto more =
          study_channel_calibrators(source, sample.values, sample.cols, kind == "activation",
                                    run.calibrators, run.calibration);
      rows.insert(rows.end(), more.begin(), more.end());
    }
    return rows;
  });
}

void run_model(const BitsOptions& options, Context& context, BitsRun& run) {
  const auto checkpoint = open_checkpoint(options.model);
  context.say_notes(*checkpoint);
  const ModelSpec spec = build_spec(checkpoint->config());
  const auto backend = context.make_cpu_backend("study");
  const ProgressSink progress = context.progress();
  const auto sink = [&](const std::string& kind) {
    return [&run, &spec, &progress, kind,
            layer = std::int64_t{0}](const std::vector<TensorSample>& samples) mutable {
      run_tensors(run, kind, samples);
      if (progress) progress(kind + "s", ++layer, spec.layers);
    };
  };
  sample_weights(spec, *checkpoint, *backend, sink("weight"));
  if (options.text.empty()) return;
  auto ids = read_text_ids(*require_tokenizer(*checkpoint), options.text);
  ids.resize(std::min(ids.size(), static_cast<std::size_t>(options.tokens)));
  sample_activations(spec, *checkpoint, *backend, ids, options.context, sink("activation"));
}

Json rows_json(const std::vector<BitsRow>& rows) {
  Json result = Json::array();
  for (const BitsRow& row : rows) {
    Json object = {{"kind", row.source.kind},   {"source", row.source.name},
                   {"group", row.source.group}, {"format", row.format},
                   {"range", row.range},        {"bits", row.bits},
                   {"clip", row.clip},          {"bits_per_weight", row.bits_per_weight}};
    if (!std::isfinite(row.bits)) object["bits"] = nullptr;  // no error at all
    result.push_back(std::move(object));
  }
  return result;
}

void study_bits(const BitsOptions& options, Context& context) {
  if (options.model.empty() && !options.text.empty()) {
    fail(ErrorKind::kUsage, "study bits: --text needs a model whose activations to study");
  }
  if (options.model.empty() && !options.calibrators.empty()) {
    fail(ErrorKind::kUsage, "study bits: --calibrator needs a model whose tensors to calibrate");
  }
  if (options.per_channel && options.calibrators.empty()) {
    fail(ErrorKind::kUsage, "study bits: --per-channel needs a --calibrator of ranges");
  }
  context.exact = true;  // activations as they are
  BitsRun run(context.threads);
  run.formats = study_formats_named(options.formats);
  run.calibrators = chosen_calibrators(options.calibrators);
  run.calibration = options.calibration;
  run.per_channel = options.per_channel;
  run_distributions(options.degrees, run);
  if (!options.model.empty()) run_model(options, context, run);

  const StudyReport report = bits_report(run.rows, label_of(options.model));
  emit_study(context, options.files, report, bits_table(run.rows), rows_json(run.rows));
}

void add_bits(CLI::App* study, Context& context) {
  CLI::App* command = study->add_subcommand(
      "bits", "Bits of accuracy of number formats on distributions and on a model's tensors");
  auto options = add_command<BitsOptions>(command, context, study_bits);
  command->add_option("model", options->model, "Checkpoint whose weights to study too");
  command->add_option("--text", options->text, "Text whose activations to study too");
  command->add_option("--tokens", options->tokens, "Tokens of the text to use")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--context", options->context, "Tokens of one window")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  command
      ->add_option("--formats", options->formats,
                   "Stored formats, separated by commas (default: all registered ones)")
      ->delimiter(',');
  command
      ->add_option("--student-t", options->degrees,
                   "Degrees of freedom of Student's distributions, separated by commas")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  std::string names = "all";
  for (const Calibrator& c : calibrators()) names += ", " + c.name;
  command
      ->add_option("--calibrator", options->calibrators,
                   "Choose ranges of the model's tensors by these too: " + names)
      ->delimiter(',');
  command
      ->add_option("--percentile", options->calibration.percentile,
                   "Share of values that calibrator 'percentile' keeps")
      ->capture_default_str();
  command->add_flag(
      "--per-channel", options->per_channel,
      "Calibrate a range for each row of a weight and each column of activations too");
  add_study_files(command, options->files);
}

}  // namespace

std::string label_of(const std::string& model) {
  const std::filesystem::path path = std::filesystem::path(model).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

void add_study(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("study", "The field's figures, on your own model");
  command->require_subcommand(1);
  add_bits(command, context);
  add_study_scaling(command, context);
  add_study_outliers(command, context);
}

}  // namespace nibble::cli
