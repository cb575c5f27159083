// Everything that is settled before the first layer is touched: the source, the plan of the output,
// the tokens. What can be refused is refused here.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/tokenizer/tokenizer.h"
#include "quantize/calibration.h"
#include "quantize/mixed_precision.h"
#include "quantize/output_plan.h"
#include "quantize/quantize.h"

namespace nibble {

class Setup {
 public:
  // Errors as quantize().
  // `runner` runs the texts; `backend` does everything else, in the host's memory.
  Setup(const QuantizeOptions& options, Backend& backend, Backend& runner);

  const CalibrationOptions& calibration() const { return calibration_; }
  // As the rewrites of the recipe leave it.
  const Checkpoint& source() const { return *source_; }
  const ModelSpec& spec() const { return spec_; }
  const OutputPlan& plan() const { return plan_; }
  const CalibrationWindows& windows() const { return windows_; }  // empty when not needed
  const std::vector<std::string>& notes() const { return notes_; }
  bool verifies() const { return verifies_; }
  const std::string& verification_text() const { return verification_text_; }

  // Of calibration: for the recipe, or for static scales of activations.
  bool needs_text() const;

  // Says everything that the bytes of the output depend on.
  std::string fingerprint() const;

  // Mixed precision: the menu of formats, what their measurements depend on, and the plan of a
  // choice. choose() makes it the plan of the output.
  FormatMenu format_menu() const;
  std::string measurements_key() const;
  OutputPlan plan_of(const ModuleFormats& chosen) const;
  void choose(const ModuleFormats& chosen) { plan_ = plan_of(chosen); }

 private:
  void check_ranges() const;
  void load_tokenizer_if_any();
  void read_texts();
  void prepare_verification(const std::string& calibration_text);
  std::string identity() const;

  const QuantizeOptions& options_;
  Backend& backend_;
  bool on_host_;                   // the runner
  std::uint64_t source_hash_ = 0;  // before any rewrite
  std::unique_ptr<Checkpoint> source_;
  ModelSpec spec_;
  OutputPlan plan_;
  std::unique_ptr<Tokenizer> tokenizer_;
  CalibrationOptions calibration_;
  CalibrationWindows windows_;
  std::vector<std::string> notes_;
  bool verifies_ = false;
  std::string verification_text_;
};

}  // namespace nibble
