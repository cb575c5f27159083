// What every convention over a Hugging Face directory shares: config.json, the tensors, companion
// files. A convention adds how it stores the weights that are quantized.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/container/tensor_files.h"

namespace nibble {

// "quantization_config" of the config.json in a directory, or the quantize_config.json,
// quant_config.json or hf_quant_config.json that stands for it, with "quant_method" set; null when
// the path is no directory or nothing is quantized. kCorrupt when a file is damaged.
Json quantization_config_of(const std::filesystem::path& path);
// Its "quant_method", or empty.
std::string quant_method_of(const std::filesystem::path& path);

// config.json of a directory, an object for certain.
Json read_hf_config(const std::filesystem::path& directory);

// Names of the files in `directory` that travel with a model, sorted.
std::vector<std::string> find_companions(const std::filesystem::path& directory);

// "<module>.weight" as a dense QuantTensor; kCorrupt unless it is a matrix of F16, BF16 or F32.
QuantTensor read_plain_linear(const TensorFiles& files, const std::string& module);

// A tensor of packed codes, scales or zero points; an error of `kind` unless it is a matrix of
// `dtype` that is not empty.
Tensor read_matrix(const TensorFiles& files, const std::string& name, DType dtype, ErrorKind kind);

// The value of a tensor of one float; kCorrupt when it is not that.
float read_single_float(const TensorFiles& files, const std::string& name);

// The values of a tensor of I32, none when it is not stored; kCorrupt when it is of another type.
std::vector<std::int32_t> read_indices(const TensorFiles& files, const std::string& name);

// The head by its usual name.
bool is_head(const std::string& module);

// How many of the `rows` of a module the model has: those of its head are as many as the
// vocabulary, and some writers fill them up to a multiple of `padding`.
std::int64_t without_padding(const Json& config, const std::string& module, std::int64_t rows,
                             std::int64_t padding);

// The quantized weights of a convention. Immutable and thread-safe.
class QuantizedModules {
 public:
  virtual ~QuantizedModules() = default;
  virtual bool has(const std::string& module) const = 0;
  virtual QuantTensor read(const std::string& module) const = 0;
  // As WeightSource::activations(), of a module that it has.
  virtual ActivationFormatPtr activations(const std::string& /*module*/) const { return nullptr; }
  virtual std::vector<std::string> notes() const { return {}; }
};

struct HfDirectory {
  std::filesystem::path path;
  Json config;
  TensorFiles files;
};
std::shared_ptr<const HfDirectory> open_hf_directory(const std::filesystem::path& path);

// A checkpoint over a directory; `quantized` may be null (a plain one).
std::unique_ptr<Checkpoint> make_hf_checkpoint(const char* convention,
                                               std::shared_ptr<const HfDirectory> directory,
                                               std::unique_ptr<const QuantizedModules> quantized);

}  // namespace nibble
