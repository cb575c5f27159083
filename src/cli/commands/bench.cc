#include "runtime/bench.h"

#include <fmt/format.h>

#include "backends/bench_codecs.h"
#include "backends/device_limits.h"
#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "cli/command.h"
#include "cli/commands/bench_linear.h"
#include "cli/commands/bench_serve.h"
#include "cli/rounding_options.h"
#include "cli/terminal.h"
#include "model/arch.h"
#include "runtime/synthetic.h"

namespace nibble::cli {
namespace {

struct ModelBenchOptions {
  std::string model;
  std::string synthetic;
  RoundingArguments rounding;
  std::string kv_type;
  BenchOptions bench;
};

Model load_bench_model(const ModelBenchOptions& options, const BenchOptions& bench,
                       Backend& backend, const Context& context) {
  if (!options.synthetic.empty()) {
    const ModelSpec spec = build_spec(synth_config(find_synth_shape(options.synthetic)));
    return load_synthetic_model(options.synthetic, backend, rounding_of(options.rounding),
                                bench_room(spec, bench));
  }
  const auto checkpoint = open_checkpoint(options.model);
  return context.with_repack_cache(options.model, backend, [&] {
    const ModelSpec spec = build_spec(checkpoint->config());
    return Model(spec, *checkpoint, backend,
                 settle_scales(rounding_of(options.rounding), *checkpoint, spec),
                 bench_room(spec, bench));
  });
}

void bench_model(const ModelBenchOptions& options, Context& context) {
  if (options.model.empty() == options.synthetic.empty()) {
    fail(ErrorKind::kUsage, "bench: give a checkpoint or --synthetic NAME");
  }
  const auto backend = context.make_backend();
  BenchOptions bench_options = options.bench;
  const SpeedLimits limits = measure_limits(*backend);
  bench_options.bytes_per_second = limits.bytes_per_second;
  bench_options.operations_per_second = limits.operations_per_second;
  if (const auto kv = rounding_of(options.rounding).kv) bench_options.kv_type = *kv;
  if (const auto kv = parse_kv_format(options.kv_type)) bench_options.kv_type = *kv;
  const Model model = load_bench_model(options, bench_options, *backend, context);
  const BenchResult result = bench(model, bench_options, context.progress());
  const Json json = {{"model", options.model.empty() ? options.synthetic : options.model},
                     {"threads", backend->pool().threads()},
                     {"isa", to_string(backend->caps().isa)},
                     {"pp_tokens_per_second", result.pp_tokens_per_second},
                     {"tg_tokens_per_second", result.tg_tokens_per_second},
                     {"bandwidth_fraction", result.bandwidth_fraction},
                     {"arithmetic", to_string(result.arithmetic)},
                     {"arithmetic_fraction", result.arithmetic_fraction},
                     {"kv_cache_dtype", to_string(bench_options.kv_type)},
                     {"context", bench_options.context},
                     {"weight_bytes", result.cost.weight_bytes},
                     {"kv_bytes", result.kv_bytes},
                     {"read_bytes_per_second", bench_options.bytes_per_second},
                     {"operations_per_second", result.operations_per_second},
                     {"execution", execution_json(model)}};
  context.emit(json,
               fmt::format("prefill {:.1f} tokens/s, {:.1f} % of the measured {:.0f} GOP/s ({})\n"
                           "decode  {:.1f} tokens/s, {:.1f} % of the measured {:.1f} GB/s\n{}",
                           result.pp_tokens_per_second, 100 * result.arithmetic_fraction,
                           result.operations_per_second / 1e9, to_string(result.arithmetic),
                           result.tg_tokens_per_second, 100 * result.bandwidth_fraction,
                           bench_options.bytes_per_second / 1e9, execution_text(model)));
}

void run_bench_codecs(const CodecBench& options, Context& context) {
  const auto backend = context.make_backend();
  const double read = measure_limits(*backend).bytes_per_second;
  // The limit of a device counts what is read and written, so codes and scales count there.
  const bool device = !backend->memory().is_host();
  const auto share = [&](const CodecRow& row, double speed) {
    const double moved = device ? 1 + row.bits_per_weight / 32 : 1;
    return read > 0 ? moved * speed / read : 0.0;
  };
  const std::string limit = device ? "% copy" : "% read";
  Json rows = Json::array();
  std::vector<std::vector<std::string>> table = {
      {"name", "format", "bits", "encode GB/s", limit, "decode GB/s", limit, "exact"}};
  for (const CodecRow& row : bench_codecs(*backend, options)) {
    const double encode = row.encode_bytes_per_second;
    const double decode = row.decode_bytes_per_second;
    rows.push_back({{"name", row.name},
                    {"format", row.format},
                    {"bits_per_weight", row.bits_per_weight},
                    {"encode_bytes_per_second", encode},
                    {"encode_bandwidth_fraction", share(row, encode)},
                    {"decode_bytes_per_second", decode},
                    {"decode_bandwidth_fraction", share(row, decode)},
                    {"equal", row.equal}});
    table.push_back({row.name, row.format, fmt::format("{:.3f}", row.bits_per_weight),
                     fmt::format("{:.2f}", encode / 1e9),
                     fmt::format("{:.0f}", 100 * share(row, encode)),
                     fmt::format("{:.2f}", decode / 1e9),
                     fmt::format("{:.0f}", 100 * share(row, decode)), row.equal ? "yes" : "NO"});
  }
  context.emit({{"threads", backend->pool().threads()},
                {"isa", to_string(backend->caps().isa)},
                {"read_bytes_per_second", read},
                {"rows", rows}},
               format_table(table));
}

}  // namespace

void add_bench(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("bench", "Speed, and its share of the machine's limits");
  auto options = add_command<ModelBenchOptions>(command, context, bench_model);
  command->add_option("model", options->model, "Checkpoint");
  command->add_option("--synthetic", options->synthetic, "Random weights of this shape instead");
  add_rounding_options(command, options->rounding,
                       "Format of synthetic weights (bf16 unless given), or rounded to at load");
  BenchOptions& bench = options->bench;
  command->add_option("--pp", bench.prompt, "Tokens of the prompt")->capture_default_str();
  command->add_option("--tg", bench.generated, "Tokens to generate")->capture_default_str();
  command->add_option("--batch", bench.batch, "Sequences at once")->capture_default_str();
  command->add_option("--context", bench.context,
                      "Tokens in the cache before decoding (random rows)");
  add_kv_option(command, options->kv_type, "kv= of --format, or bf16");
  command->add_option("--repetitions", bench.repetitions, "Best of so many")->capture_default_str();

  add_bench_linear(command, context);

  CLI::App* codecs = command->add_subcommand("codecs", "Encoding and decoding of weights");
  auto codec_options = add_command<CodecBench>(codecs, context, run_bench_codecs);
  codecs->add_option("--formats", codec_options->formats, "Comma separated; default: all names")
      ->delimiter(',');
  codecs->add_option("--rows", codec_options->rows, "Rows of the matrix")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  codecs->add_option("--cols", codec_options->cols, "Columns of the matrix")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));

  add_bench_serve(command, context);
}

}  // namespace nibble::cli
