#include "quantize/gguf_pass.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "checkpoint/gguf_vocabulary.h"
#include "model/arch.h"
#include "quantize/calibration.h"
#include "quantize/imatrix_pass.h"
#include "quantize/texts.h"
#include "runtime/session.h"

namespace nibble {
namespace {

CalibrationOptions calibration_of(const GgufQuantization& options, const ModelSpec& spec) {
  CalibrationOptions calibration;
  if (options.calibration.tokens > 0) calibration.tokens = options.calibration.tokens;
  if (options.calibration.context > 0) calibration.context = options.calibration.context;
  if (spec.max_positions > 0) {
    calibration.context = std::min(calibration.context, spec.max_positions);
  }
  return calibration;
}

Imatrix measured(const GgufQuantization& options, const Checkpoint& source,
                 std::span<const std::string> texts, Backend& backend, GgufReport& report) {
  const auto tokenizer = require_tokenizer(source);
  std::vector<std::int32_t> ids;
  for (const std::string& text : texts) {
    std::ranges::copy(tokenizer->encode(text), std::back_inserter(ids));
  }
  const CalibrationWindows windows =
      cut_windows(ids, calibration_of(options, build_spec(source.config())), false);
  Imatrix imatrix =
      measure_imatrix(source, backend, windows.statistics, windows.context, options.progress);
  report.calibration_tokens = windows.tokens();
  report.context = windows.context;
  report.weighted = static_cast<std::int64_t>(imatrix.entries().size());
  return imatrix;
}

}  // namespace

GgufReport quantize_to_gguf(const GgufQuantization& options, Backend& backend) {
  const auto start = std::chrono::steady_clock::now();
  if (std::filesystem::exists(options.output)) {
    fail(ErrorKind::kUsage, "{}: exists already; remove it or choose another name",
         options.output.string());
  }
  // What can be refused is refused before the work.
  const std::vector<std::string> texts = calibration_texts(options.calibration_files);
  std::string all;
  for (const std::string& text : texts) all += text;
  const std::string held_out = verification_text(options.verify, all);

  GgufReport report;
  const auto source = open_checkpoint(options.source);
  const Imatrix imatrix = measured(options, *source, texts, backend, report);
  ConvertOptions how;
  how.target = "gguf";
  how.preset = options.preset.empty() && options.format.empty() ? "Q4_K_M" : options.preset;
  how.format = options.format;
  how.imatrix = &imatrix;
  how.codec = backend.codec();
  report.conversion = convert_checkpoint(*source, options.output, how, options.progress);
  require_same_tokens(*source, options.output, held_out);
  if (options.verify.enabled) {
    report.verify =
        verify(options.output, options.source, held_out, options.verify, backend, options.progress);
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

void require_same_tokens(const Checkpoint& source, const std::filesystem::path& written,
                         std::string_view text) {
  if (!tokenizer_documents(source).contains("tokenizer.json")) return;
  const auto before = require_tokenizer(source);
  const auto after = require_tokenizer(*open_checkpoint(written));
  if (before->encode(text) == after->encode(text)) return;
  fail(ErrorKind::kUnsupported,
       "{}: written, but its tokenizer cuts a text into other tokens than that of {} does: it is "
       "of a kind that GGUF has only nearly",
       written.string(), source.path().string());
}

}  // namespace nibble
