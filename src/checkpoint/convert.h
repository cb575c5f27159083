// From one convention to another. Values are kept bit for bit, or the conversion is refused unless
// the caller allows rounding.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/log.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/encoding.h"
#include "formats/codec.h"

namespace nibble {

class Imatrix;
struct ConvertOptions;
struct ConvertReport;

struct ConvertTarget {
  std::string name;  // "gptq_v2"
  // The first that keeps a model is taken, of models with rounded activations the last; none:
  // plain 16- or 32-bit weights.
  std::vector<const WeightEncoding*> encodings;
  std::string fallback_format;  // what is rounded to, when that is allowed and nothing is named
  // Of targets that are no directory of named tensors: all of it. Null for the others.
  ConvertReport (*convert)(const Checkpoint&, const std::filesystem::path&, const ConvertOptions&,
                           const ProgressSink&) = nullptr;
};
const std::vector<ConvertTarget>& convert_targets();
// kUsage, listing the names, when there is none.
const ConvertTarget& find_convert_target(const std::string& name);

struct ConvertOptions {
  std::string target;
  // Round what the target cannot say to `format`, and leave out what inputs are rounded to.
  bool requantize = false;
  std::string format;  // empty: the target's own
  // Of GGUF: the mixture of types ("Q4_K_M"), which plain weights are rounded to without
  // `requantize` too; so they are to `format`. Empty: none.
  std::string preset = {};
  const Imatrix* imatrix = nullptr;  // what the columns of weights weigh; null: all the same
  Codec codec = {};
};

struct ConvertReport {
  std::string from, to;                          // conventions
  std::int64_t modules = 0;                      // quantized in the source
  std::vector<std::string> requantized;          // modules of which values changed
  std::vector<std::string> dropped_activations;  // modules whose inputs are no longer rounded
  std::vector<std::string> left_out;             // tensors that the target has no place for
  std::int64_t bytes = 0;                        // of all tensors written

  // Every value of every tensor was read back and is the same.
  bool exact() const { return requantized.empty() && dropped_activations.empty(); }
};

// Writes `destination`, a directory (a file in GGUF) that must not exist, and compares what it
// reads back with the source, tensor by tensor. One weight at a time is in memory. kUnsupported,
// naming the module and the reason, when values would change and options.requantize is false;
// kUsage when the source has no quantized weights to convert.
ConvertReport convert_checkpoint(const Checkpoint& source, const std::filesystem::path& destination,
                                 const ConvertOptions& options, const ProgressSink& progress = {});

}  // namespace nibble
