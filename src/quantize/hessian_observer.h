// Gathers Hessians of the inputs of a block's linears while the block runs.
#pragma once

#include <map>
#include <set>
#include <string>

#include "model/model.h"
#include "quantize/block.h"
#include "quantize/hessian_sums.h"

namespace nibble {

// The inputs of some sites, one after the other: what one chunk of text makes of them.
class InputRecorder : public SiteObserver {
 public:
  InputRecorder(const std::set<std::string>& sites, Backend& backend)
      : sites_(sites), backend_(backend) {}

  bool on_device() const override { return true; }
  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override;

  // [rows, cols]; null when nothing was recorded.
  const Rows* find(const std::string& site) const;

 private:
  const std::set<std::string>& sites_;
  Backend& backend_;
  std::map<std::string, Rows> inputs_;
};

// Fills Hessians of the sites asked for, in one pass over the calibration text, chunk by chunk,
// where the backend runs it.
class HessianObserver : public SiteObserver {
 public:
  // sample_stride > 0: every so many rows of a site are kept as its samples.
  HessianObserver(std::int64_t layer, const std::set<std::string>& sites, Backend& backend,
                  std::int64_t sample_stride = 0)
      : layer_(layer), sites_(sites), backend_(backend), sample_stride_(sample_stride) {}

  // What the unquantized model makes of the chunk that comes next; null for no drift.
  void expect(const InputRecorder* full) {
    full_ = full;
    seen_.clear();
  }
  bool on_device() const override { return true; }
  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override;

  // The rows of a site that this chunk showed, and what is missing from the stream that its linear
  // is added to, [rows, outputs].
  void add_residual(const std::string& site, const Rows& x, const Rows& missing);

  // kCorrupt, naming the layer and the site, when an input held a NaN or infinity.
  LayerHessians take();

 private:
  struct Samples {
    std::vector<float> values;
    std::int64_t seen = 0;  // rows that they were taken from
  };
  void add_samples(const std::string& site, const float* x, std::int64_t rows, std::int64_t cols);

  std::int64_t layer_;
  const std::set<std::string>& sites_;
  Backend& backend_;
  std::int64_t sample_stride_;
  const InputRecorder* full_ = nullptr;
  std::map<std::string, std::int64_t> seen_;  // rows of the chunk so far
  std::map<std::string, HessianSums> sums_;
  std::map<std::string, Samples> samples_;
};

}  // namespace nibble
