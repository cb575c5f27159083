// Gathers Hessians of the inputs of a block's linears while the block runs.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "model/model.h"
#include "quantize/block.h"

namespace nibble {

// The inputs of some sites, one after the other: what one chunk of text makes of them.
class InputRecorder : public SiteObserver {
 public:
  explicit InputRecorder(const std::set<std::string>& sites) : sites_(sites) {}

  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override;

  // Null when nothing was recorded.
  const std::vector<float>* find(const std::string& site) const;

 private:
  const std::set<std::string>& sites_;
  std::map<std::string, std::vector<float>> inputs_;
};

// Adds rows x [rows, channels] to the sums. `full`, the same rows in the unquantized model, or
// null: no drift. Products of some thousand rows are float32, their sum is float64; in an order
// that does not depend on the number of threads.
void accumulate(Hessian& hessian, const float* x, const float* full, std::int64_t rows,
                Backend& backend);
// Adds rows of what is missing from the residual stream, [rows, outputs], and of x to
// Hessian::residual.
void accumulate_residual(Hessian& hessian, const float* missing, std::int64_t outputs,
                         const float* x, std::int64_t rows, Backend& backend);

// Copies what is computed on one side of the diagonal to the other; after the last accumulate().
void finish(Hessian& hessian);

// Fills Hessians of the sites asked for, in one pass over the calibration text, chunk by chunk.
// kCorrupt, naming the layer and the site, when an input holds a NaN or infinity.
class HessianObserver : public SiteObserver {
 public:
  HessianObserver(std::int64_t layer, const std::set<std::string>& sites, Backend& backend)
      : layer_(layer), sites_(sites), backend_(backend) {}

  // What the unquantized model makes of the chunk that comes next; null for no drift.
  void expect(const InputRecorder* full) {
    full_ = full;
    seen_.clear();
  }
  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override;

  // The rows of a site that this chunk showed, and what is missing from the stream that its linear
  // is added to, [rows, outputs].
  void add_residual(const std::string& site, const std::vector<float>& x,
                    const std::vector<float>& missing, std::int64_t outputs);

  LayerHessians take();

 private:
  std::int64_t layer_;
  const std::set<std::string>& sites_;
  Backend& backend_;
  const InputRecorder* full_ = nullptr;
  std::map<std::string, std::size_t> seen_;  // values of the chunk so far
  LayerHessians hessians_;
};

}  // namespace nibble
