// "quantization_config" of the compressed-tensors convention, read: which scheme a module has.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/name_pattern.h"
#include "checkpoint/pack_quantized.h"
#include "formats/activation_format.h"
#include "formats/format.h"

namespace nibble {

struct CompressedArgs {
  int bits = 8;
  bool is_float = false;  // F8_E4M3 (8 bits) or E2M1 (4 bits) instead of integers
  Granularity granularity = Granularity::kTensor;
  std::int64_t group = 0;       // columns that share a scale (kGroup, kBlock)
  std::int64_t block_rows = 1;  // and rows (kBlock)
  bool symmetric = true;
  std::optional<ActivationDescriptor> input;  // what activations are rounded to
};

// Immutable and thread-safe.
class CompressedConfig {
 public:
  // kCorrupt when a key is missing or of the wrong type, kUnsupported for formats, types and
  // strategies that nibble cannot compute with; `what` names the file in errors.
  CompressedConfig(const Json& quantization_config, const std::string& what);

  // The arguments of the group that targets the module: by its exact name, else by a pattern, else
  // as a "Linear". kCorrupt when no group does or the module is on the ignore list.
  const CompressedArgs& args(const std::string& module) const;
  // The packing that the version of the writer suggests where widths leave it open.
  Packing preferred_packing() const { return preferred_packing_; }
  // What is asked for beside the weights and `input`, and is not done; empty when there is none.
  const std::string& ignored() const { return ignored_; }

 private:
  void add_group(const Json& group, const std::string& name);
  void add_targets(const Json& targets, std::size_t index, const std::string& name);
  std::optional<std::size_t> find(const std::string& module) const;

  std::string what_;
  std::vector<CompressedArgs> groups_;
  std::map<std::string, std::size_t> exact_;
  std::vector<std::pair<NamePattern, std::size_t>> patterns_;
  std::optional<std::size_t> linear_;
  std::vector<NamePattern> ignore_;
  Packing preferred_packing_ = Packing::kDense;
  std::string ignored_;
};

}  // namespace nibble
