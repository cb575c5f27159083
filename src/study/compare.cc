#include "study/compare.h"

#include <algorithm>
#include <tuple>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/file.h"
#include "eval/perplexity.h"
#include "eval/text.h"
#include "model/arch.h"
#include "model/inventory.h"
#include "quantize/texts.h"
#include "runtime/bench.h"
#include "runtime/session.h"
#include "study/pareto.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// Counts up when the numbers of a row change for the same input.
constexpr int kMathsVersion = 1;

// One recipe in one format.
struct Candidate {
  const Recipe& recipe;
  std::string name;  // of the format, as it was asked for
  ModelFormat format;

  Candidate(const Recipe& of, const std::string& in)
      : recipe(of), name(in), format(parse_model_format(in)) {}
};

// Fields of a stored result and where they go.
struct Field {
  const char* name;
  double CompareRow::*value;
};
constexpr Field kQuantized[] = {{"bits_per_weight", &CompareRow::bits_per_weight},
                                {"bits_per_weight_total", &CompareRow::bits_per_weight_total},
                                {"bytes", &CompareRow::bytes},
                                {"seconds", &CompareRow::seconds},
                                {"peak_anon_bytes", &CompareRow::peak_anon_bytes}};
constexpr Field kEvaluated[] = {{"perplexity", &CompareRow::perplexity},
                                {"stderr_nll", &CompareRow::stderr_nll},
                                {"mean_kl", &CompareRow::mean_kl},
                                {"p99_kl", &CompareRow::p99_kl},
                                {"top1_agreement", &CompareRow::top1_agreement},
                                {"tokens_per_second", &CompareRow::tokens_per_second}};

class Comparison {
 public:
  Comparison(const CompareOptions& options, const ResultCache& cache,
             const CompareBackends& backends)
      : options_(options), cache_(cache), backends_(backends) {
    const Session source = open_session(options.source, backends.runner);
    if (source.model->spec().max_positions > 0) {
      windows_.context = std::min(options.context, source.model->spec().max_positions);
    } else {
      windows_.context = options.context;
    }
    ids_ = read_text_ids(source.require_tokenizer(), options.text);
    ids_.resize(std::min(ids_.size(), static_cast<std::size_t>(options.tokens)));
    base_key_ = fmt::format("compare {} nibble {}\nmodel {}\n", kMathsVersion, NIBBLE_VERSION,
                            hash_model(source.checkpoint->config(), *source.checkpoint));
    if (!backends.runner.memory().is_host()) base_key_ += "texts run on a device\n";
    check_texts();
  }

  CompareRow source_row() {
    CompareRow row;
    row.stored = "as it is";
    const std::string key = base_key_ + "as it is\n" + text_key();
    {
      const Session session = open_session(options_.source, backends_.runner);
      const Inventory inventory =
          take_inventory(session.model->spec(), *session.checkpoint, backends_.runner);
      row.bits_per_weight = inventory.bits_per_weight;
      row.bits_per_weight_total = inventory.bits_per_weight_total;
      row.bytes = static_cast<double>(inventory.bytes);
    }
    if (!read(key, kEvaluated, row)) {
      look_at_source(row);
      look_at_speed(options_.source, row);
      write(key, kEvaluated, Json::object(), row);
    }
    say(row);
    return row;
  }

  CompareRow row_of(const Candidate& candidate) {
    CompareRow row;
    row.recipe = candidate.recipe.name;
    row.format = candidate.name;
    const std::string key = base_key_ + key_of(candidate);
    ContentHash hash;
    hash.add(key);
    const fs::path output = options_.work / hash.hex();
    const bool evaluated = read(key + text_key(), kEvaluated, row);
    if (!read_quantized(key, row) || (!evaluated && !fs::exists(output))) {
      quantize_into(candidate, output, key, row);
    }
    if (!evaluated) {
      look_at_quality(output, row);
      look_at_speed(output, row);
      write(key + text_key(), kEvaluated, Json::object(), row);
    }
    std::error_code ignored;
    if (!options_.keep) fs::remove_all(output, ignored);
    say(row);
    return row;
  }

 private:
  // A text that calibrated a candidate says nothing about it.
  void check_texts() {
    std::string all;
    for (const fs::path& file : options_.calibration_files) all += read_text_file(file);
    if (all.empty()) all = bundled_calibration_text();
    ContentHash hash;
    hash.add(all);
    calibration_hash_ = hash.hex();
    VerifyOptions verify;
    verify.text = options_.text;
    verification_text(verify, all);
  }

  std::string text_key() const {
    ContentHash text;
    text.add(std::as_bytes(std::span(ids_)));
    return fmt::format("tokens {} in windows of {}\n", text.hex(), windows_.context);
  }

  std::string key_of(const Candidate& candidate) const {
    return fmt::format("recipe {}\nformat {}\ncalibration {} {} {} {}\n",
                       to_string(candidate.recipe), candidate.name, calibration_hash_,
                       options_.calibration.tokens, options_.calibration.search_tokens,
                       options_.calibration.context);
  }

  bool read(const std::string& key, std::span<const Field> fields, CompareRow& row) const {
    const std::optional<Json> stored = cache_.find(key);
    if (!stored) return false;
    try {
      for (const Field& field : fields) row.*field.value = number_of(*stored, field.name);
    } catch (const Error& damaged) {
      log(options_.log, LogLevel::kWarning,
          fmt::format("{}: computing it anew: {}", cache_.file_of(key).string(), damaged.what()));
      return false;
    }
    return true;
  }

  bool read_quantized(const std::string& key, CompareRow& row) const {
    const std::optional<Json> stored = cache_.find(key);
    if (!stored || !stored->is_object() || !stored->contains("stored") ||
        !(*stored)["stored"].is_string()) {
      return false;
    }
    row.stored = (*stored)["stored"].get<std::string>();
    return read(key, kQuantized, row);
  }

  void write(const std::string& key, std::span<const Field> fields, Json value,
             const CompareRow& row) const {
    for (const Field& field : fields) value[field.name] = number_or_null(row.*field.value);
    cache_.put(key, value);
  }

  void quantize_into(const Candidate& candidate, const fs::path& output, const std::string& key,
                     CompareRow& row) {
    std::error_code error;
    fs::create_directories(options_.work, error);
    if (error) fail(ErrorKind::kDisk, "{}: {}", options_.work.string(), error.message());
    fs::remove_all(output, error);  // of a run that ended before it could say what it took
    QuantizeOptions options;
    options.source = options_.source;
    options.output = output;
    options.recipe = candidate.recipe;
    options.format = candidate.format;
    options.calibration_files = options_.calibration_files;
    options.calibration = options_.calibration;
    options.verify.enabled = false;
    options.resume = true;
    options.log = options_.log;
    options.progress = options_.progress;
    const QuantizeReport report = quantize(options, backends_.backend, backends_.runner);
    row.stored = report.format;
    row.bits_per_weight = report.bits_per_weight;
    row.bits_per_weight_total = report.bits_per_weight_total;
    row.bytes = static_cast<double>(report.output_bytes);
    row.seconds = report.seconds;
    row.peak_anon_bytes = static_cast<double>(report.peak_anon_bytes);
    write(key, kQuantized, {{"stored", row.stored}}, row);
  }

  // The model is no distance from itself: it is run once, not as both sides of a comparison.
  void look_at_source(CompareRow& row) {
    const Session source = open_session(options_.source, backends_.runner);
    const PerplexityResult result = perplexity(*source.model, ids_, windows_, options_.progress);
    row.perplexity = result.perplexity;
    row.stderr_nll = result.stderr_nll;
    row.top1_agreement = 1;
  }

  void look_at_quality(const fs::path& checkpoint, CompareRow& row) {
    const Session reference = open_session(options_.source, backends_.runner);
    const Session candidate = open_session(checkpoint, backends_.runner);
    const DivergenceResult result =
        divergence(*candidate.model, *reference.model, ids_, windows_, options_.progress);
    row.perplexity = result.model.perplexity;
    row.stderr_nll = result.model.stderr_nll;
    row.mean_kl = result.mean_kl;
    row.p99_kl = result.p99_kl;
    row.top1_agreement = result.top1_agreement;
  }

  void look_at_speed(const fs::path& checkpoint, CompareRow& row) {
    const Session fast = open_session(checkpoint, backends_.fast);
    BenchOptions speed;
    speed.prompt = 16;
    speed.generated = 64;
    speed.kv_type = fast.kv_type;
    row.tokens_per_second = bench(*fast.model, speed).tg_tokens_per_second;
  }

  // A long comparison is read while it runs; the table comes at its end.
  void say(const CompareRow& row) const {
    log(options_.log, LogLevel::kInfo,
        fmt::format("{}: {:.3f} bits a weight, perplexity {:.3f}, mean KL {:.5f}, top-1 {:.2f} %",
                    name_of(row), row.bits_per_weight, row.perplexity, row.mean_kl,
                    100 * row.top1_agreement));
  }

  const CompareOptions& options_;
  const ResultCache& cache_;
  CompareBackends backends_;
  WindowOptions windows_;
  std::vector<std::int32_t> ids_;
  std::string base_key_, calibration_hash_;
};

std::vector<Candidate> candidates_of(const CompareOptions& options) {
  std::vector<Candidate> candidates;
  for (const Recipe& recipe : options.recipes) {
    for (const std::string& format : options.formats) candidates.emplace_back(recipe, format);
    if (options.formats.empty()) candidates.emplace_back(recipe, recipe.format);
  }
  return candidates;
}

}  // namespace

std::string name_of(const CompareRow& row) {
  return row.recipe.empty() ? "as it is" : row.recipe + " in " + row.format;
}

std::vector<CompareRow> compare_recipes(const CompareOptions& options, const ResultCache& cache,
                                        const CompareBackends& backends) {
  const std::vector<Candidate> candidates = candidates_of(options);
  Comparison comparison(options, cache, backends);
  const CompareRow source = comparison.source_row();
  std::vector<CompareRow> rows;
  for (const Candidate& candidate : candidates) {
    try {
      rows.push_back(comparison.row_of(candidate));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kUnsupported) throw;
      log(options.log, LogLevel::kWarning,
          fmt::format("left out: {} in {}: {}", candidate.recipe.name, candidate.name,
                      error.what()));
    }
  }
  if (rows.empty()) fail(ErrorKind::kUsage, "compare: none of the recipes can make these formats");
  std::ranges::stable_sort(
      rows, {}, [](const CompareRow& row) { return std::tuple(row.bytes, row.mean_kl); });
  rows.insert(rows.begin(), source);
  mark_pareto(rows);
  return rows;
}

void mark_pareto(std::vector<CompareRow>& rows) {
  std::vector<std::pair<double, double>> points;
  for (const CompareRow& row : rows) points.emplace_back(row.bytes, row.mean_kl);
  for (const std::size_t i : pareto_front(points)) rows[i].pareto = true;
}

}  // namespace nibble
