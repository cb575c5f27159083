// A checkpoint whose tensors are changed while they are read: the source of a quantization whose
// recipe first changes the whole model into another that computes the same. What is quantized, what
// is calibrated on, and what is written follow from it as from any other source.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/model.h"
#include "quantize/math/rotation.h"

namespace nibble {

// What becomes of a weight [rows, cols], in this order.
struct MatrixChange {
  std::int64_t layer = -1;       // of the block that it is a linear (or the router) of; -1: none
  std::string from;              // the module whose weight it is made of; empty: the same
  std::vector<float> gain;       // [cols] by which columns are multiplied; or empty
  bool centers_columns = false;  // each row less its mean
  bool centers_rows = false;     // each column less its mean
  RotationPtr columns;           // of each row, so many columns at a time; null: none
  RotationPtr rows;              // rotate_rows() at each of row_begins; null: none
  std::vector<std::int64_t> row_begins;
};

struct Rewrite {
  Json config;                                   // of the new checkpoint
  std::map<std::string, MatrixChange> matrices;  // by module
  std::map<std::string, Tensor> tensors;         // that are new, or stand for those of the source
  std::set<std::string> left_out;                // tensors
  // Blocks of the Hadamard matrix that the input of a module has to be multiplied by.
  std::map<std::string, std::int64_t> input_hadamards;
};

// A vector that the changed rows make, such as a bias.
void change_vector(const MatrixChange& change, std::vector<float>& values);

// Values are of the source's types. In memory is one matrix in float32, and a layer where the
// source's layout has to be changed. Not thread-safe: it reads with the threads of the backend.
class RewrittenCheckpoint final : public Checkpoint {
 public:
  // `spec` is that of the source; the backend outlives this.
  RewrittenCheckpoint(std::unique_ptr<Checkpoint> source, ModelSpec spec, Rewrite rewrite,
                      Backend& backend);

  bool has(const std::string& name) const override { return names_.contains(name); }
  Tensor tensor(const std::string& name) const override;
  std::vector<std::string> names() const override { return {names_.begin(), names_.end()}; }
  bool has_linear(const std::string& module) const override;
  QuantTensor linear(const std::string& module) const override;
  ActivationFormatPtr activations(const std::string& module) const override {
    return source_->activations(module);
  }
  std::int64_t input_hadamard(const std::string& module) const override;

  std::string convention() const override { return source_->convention(); }
  const std::filesystem::path& path() const override { return source_->path(); }
  const Json& config() const override { return rewrite_.config; }
  std::vector<std::string> companion_files() const override { return source_->companion_files(); }
  std::map<std::string, Json> documents() const override { return source_->documents(); }
  std::vector<std::string> notes() const override { return source_->notes(); }

 private:
  // As the source has it, [rows, cols].
  Tensor original(const std::string& module, const MatrixChange& change) const;

  std::unique_ptr<Checkpoint> source_;
  ModelSpec spec_;
  Rewrite rewrite_;
  Backend& backend_;
  std::set<std::string> names_;
  mutable std::int64_t loaded_ = -1;
  mutable std::map<std::string, QuantTensor> layer_;  // weights of the layer loaded last
};

}  // namespace nibble
