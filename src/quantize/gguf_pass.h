// Quantizing to a GGUF file: statistics of the model's own activations weigh the errors of columns
// while its weights are rounded to the types of a preset or to one type; then the file is read
// again and compared with the source.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "base/log.h"
#include "checkpoint/convert.h"
#include "quantize/recipe.h"
#include "quantize/verify.h"

namespace nibble {

struct GgufQuantization {
  std::filesystem::path source;
  std::filesystem::path output;  // a file that must not exist
  // At most one of them: a mixture of types ("Q4_K_M"), or one type for all ("q4_k"). Q4_K_M where
  // both are empty.
  std::string preset, format;
  std::vector<std::filesystem::path> calibration_files;  // empty: the bundled text
  // Positive values replace those of CalibrationOptions; nothing is held back for a search.
  CalibrationOptions calibration = {0, 0, 0};
  VerifyOptions verify;
  ProgressSink progress;
};

struct GgufReport {
  ConvertReport conversion;
  std::int64_t calibration_tokens = 0;
  std::int64_t context = 0;   // of a calibration window
  std::int64_t weighted = 0;  // tensors whose columns were weighed
  std::optional<VerifyResult> verify;
  double seconds = 0;
};

// kUsage when the output exists, there is no tokenizer, or the texts cannot be used; errors of
// measure_imatrix() and convert_checkpoint() besides. The file is complete when verification says
// that it is not good enough, which is the caller's to ask (require_quality()).
GgufReport quantize_to_gguf(const GgufQuantization& options, Backend& backend);

// Tokenizers are written anew: kUnsupported unless the text becomes the same tokens under both. A
// source without tokenizer.json has nothing to compare.
void require_same_tokens(const Checkpoint& source, const std::filesystem::path& written,
                         std::string_view text);

}  // namespace nibble
