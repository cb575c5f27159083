#include "quantize/verify.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "eval/perplexity.h"
#include "quantize/texts.h"
#include "runtime/session.h"

namespace nibble {
namespace {

constexpr double kMaxOverlap = 0.01;

}  // namespace

std::string verification_text(const VerifyOptions& options, std::string_view calibration_text) {
  const bool bundled = options.text.empty();
  std::string text =
      bundled ? std::string(bundled_verification_text()) : read_text_file(options.text);
  const std::string name = bundled ? "the bundled verification text" : options.text.string();
  if (!is_valid_utf8(text)) fail(ErrorKind::kUsage, "{}: is not valid UTF-8", name);
  const double shared = overlap(text, calibration_text);
  if (shared > kMaxOverlap) {
    fail(ErrorKind::kUsage,
         "{}: {:.0f} % of it is in the calibration text, which would prove nothing; verify with a "
         "text of its own",
         name, 100 * shared);
  }
  return text;
}

VerifyResult verify(const std::filesystem::path& quantized, const std::filesystem::path& source,
                    std::string_view text, const VerifyOptions& options, Backend& backend,
                    const ProgressSink& progress) {
  const Session reference = open_session(source, backend);
  const Session candidate = open_session(quantized, backend);
  const std::vector<std::int32_t> ids = reference.require_tokenizer().encode(text);
  WindowOptions windows;
  windows.context = options.context;
  const std::int64_t positions = reference.model->spec().max_positions;
  if (positions > 0) windows.context = std::min(windows.context, positions);
  windows.max_tokens = options.tokens;
  const DivergenceResult divergences =
      divergence(*candidate.model, *reference.model, ids, windows, progress);

  VerifyResult result;
  result.perplexity = divergences.model.perplexity;
  result.perplexity_reference = divergences.reference.perplexity;
  result.mean_kl = divergences.mean_kl;
  result.p99_kl = divergences.p99_kl;
  result.top1_agreement = divergences.top1_agreement;
  result.nan = divergences.model.nan;
  result.tokens = divergences.model.tokens;
  result.context = std::min(windows.context, static_cast<std::int64_t>(ids.size()));
  return result;
}

void require_quality(const VerifyOptions& options, const VerifyResult& result,
                     const std::filesystem::path& output) {
  if (result.mean_kl <= options.fail_above_kl) return;
  fail(ErrorKind::kQuality,
       "{}: the mean KL divergence of {:.4f} nats is above {}; the output is complete all the same",
       output.string(), result.mean_kl, options.fail_above_kl);
}

}  // namespace nibble
