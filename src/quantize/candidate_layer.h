// One layer of a model as the candidates of a search have it, one after the other.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "quantize/passes.h"

namespace nibble {

// The matrices of a layer times vectors, made where a backend computes, in buffers that are used
// again. References outlive it.
class ScaledMatrices {
 public:
  // Of float32 matrices in the host's memory.
  ScaledMatrices(Backend& backend, const std::vector<Linear*>& originals);

  // The matrix of this place among the originals; until the next call for it.
  const Tensor& scaled(std::size_t place, const Scaling& scaling);

 private:
  Backend& backend_;
  std::vector<Tensor> originals_;
  std::vector<Tensor> scaled_;
};

// Where a recipe only smooths, candidates are the original times vectors; on a device that encodes
// their formats all of that is done there. References outlive it.
class CandidateLayer {
 public:
  // Loads the layer as float32; kCorrupt as check_finite().
  CandidateLayer(const Job& job, std::int64_t layer);

  LayerWeights& original() { return original_; }

  // The layer transformed to a point and rounded, where the runner has its weights; until the next
  // call. `seen` and `hessians` are of the original's inputs.
  LayerWeights rounded(const RecipePoint& point, const LayerStatistics& seen,
                       const LayerHessians& hessians);

 private:
  bool encodes_on_runner();
  void encode_on_runner(const LayerStatistics& statistics, LayerWeights& weights);

  const Job& job_;
  LayerWeights original_;
  std::unique_ptr<ScaledMatrices> matrices_;              // null: the recipe does more than smooth
  bool on_runner_ = false;                                // matrices_
  std::map<std::string, std::vector<float>> magnitudes_;  // Deferred::magnitudes
  std::map<std::string, QuantTensor> codes_;              // by module, there
};

}  // namespace nibble
