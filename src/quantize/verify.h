// Proof of a quantized checkpoint: reloaded from what was written, against its source.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "base/log.h"

namespace nibble {

struct VerifyOptions {
  bool enabled = true;
  std::filesystem::path text;   // empty: the bundled text
  std::int64_t tokens = 65536;  // at most
  std::int64_t context = 1024;  // less when the text or the model's positions are shorter
  double fail_above_kl = std::numeric_limits<double>::infinity();  // mean KL, nats
};

struct VerifyResult {
  double perplexity = 0, perplexity_reference = 0;
  double mean_kl = 0, p99_kl = 0;  // KL(source || quantized), nats
  double top1_agreement = 0;
  std::int64_t nan = 0;  // predictions of the quantized model that hold a NaN or infinity
  std::int64_t tokens = 0;
  std::int64_t context = 0;
};

// The text that the options name. kUsage when it shares more than 1 % with the calibration text.
std::string verification_text(const VerifyOptions& options, std::string_view calibration_text);

// Both checkpoints over the same windows. kUsage when there is no tokenizer.
VerifyResult verify(const std::filesystem::path& quantized, const std::filesystem::path& source,
                    std::string_view text, const VerifyOptions& options, Backend& backend,
                    const ProgressSink& progress = {});

// kQuality, naming the output, when the mean KL is above what the options allow.
void require_quality(const VerifyOptions& options, const VerifyResult& result,
                     const std::filesystem::path& output);

}  // namespace nibble
