// Quantization algorithms: what they need is data, what they do is a function. The driver orders
// and checks steps by that data and never asks which algorithm it runs.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "backends/backend.h"
#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "formats/format.h"
#include "model/sites.h"
#include "quantize/math/hessian.h"
#include "quantize/statistics.h"

namespace nibble {

enum class StepKind {
  kRewrite,    // changes the whole model, before anything is measured, into one that computes the
               // same
  kTransform,  // changes a block so that it computes the same and quantizes better
  kSearch,     // a family of transforms; the one with the least loss of the whole model is taken
  kSolver,     // chooses scales and zero points; every recipe has one
  kCorrection  // changes the biases of linears that are rounded already; after the solver
};
// kStatistics: of the source's activations. kHessian: correlations of each linear's inputs, in the
// model whose blocks before are quantized already. kActivations: inputs of each block in that
// model, and its outputs in the source.
enum class CalibrationNeed { kNone, kStatistics, kHessian, kActivations };
enum class Scope { kLinear, kBlock, kModel };  // what an algorithm must see at once
std::string to_string(StepKind kind);

struct Needs {
  CalibrationNeed calibration = CalibrationNeed::kNone;
  Scope scope = Scope::kLinear;
  // kHessian of a solver: the linears before a site in the same block are quantized already, too.
  bool by_site = false;
  // kHessian of a solver: also Hessian::drift.
  bool drift = false;
  // With it: also Hessian::residual.
  bool residual = false;
  // kHessian of a solver: also Hessian::samples.
  bool samples = false;
  // kActivations: windows of the text that are run forward and backward through each block.
  std::int64_t trained_windows = 0;
  // Of a search: candidates are solved with the correlations of the source's inputs.
  bool solves_candidates = false;
};

using ParameterValue = std::variant<bool, double, std::string>;
using Parameters = std::map<std::string, ParameterValue>;

// A parameter that a recipe may set. Numbers lie in [min, max], strings are one of `choices`.
struct ParameterSpec {
  std::string name;
  ParameterValue value;  // default; its type is the parameter's
  std::string help;
  double min = 0, max = 0;
  bool integer = false;
  std::vector<std::string> choices;
};

// One weight matrix for a solver.
struct SolverProblem {
  FormatPtr format;          // no plain float
  const float* w = nullptr;  // [rows, cols], float32
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  // E[x_j^2] of the input, [cols]; empty when unknown (then all channels weigh the same).
  std::span<const float> second_moment;
  // Null when unknown: in a search, say, or for an expert that saw too little. A solver that wants
  // one does then what it can without.
  const Hessian* hessian = nullptr;
  ThreadPool& pool;
  Backend& products;  // multiplies and factors large matrices: the host's, or a device's
  // Kernels and the same threads as the pool's; the seed is one of this matrix alone.
  Codec codec = {};
  // What the input is to be rounded to, its scale open where it is a static one; null: nothing.
  ActivationFormatPtr activations = nullptr;
};

struct Solution {
  QuantTensor stored;
  std::string note;  // what had to be done instead of what was asked, to be said aloud; or empty
  // What the solver chose for the input, complete; null: as it was asked for, and a static scale as
  // calibrators find it.
  ActivationFormatPtr activations = nullptr;
};

// A whole block for a solver.
struct BlockProblem {
  const ModelSpec& spec;
  std::int64_t layer = 0;
  LayerWeights& weights;  // float32, prepared; as before when the solver returns
  std::int64_t context = 0;
  // Hidden states of whole windows, [windows * context, hidden]: before the block in the model
  // whose blocks before are quantized, and after it in the unquantized one.
  std::span<const float> inputs, targets;
  const std::function<FormatPtr(const Linear&)>& format_of;
  Backend& backend;
  std::uint64_t seed = 0;  // of this block alone

  std::int64_t windows() const {
    return static_cast<std::int64_t>(inputs.size()) / (context * spec.hidden);
  }
};

// One linear for a correction.
struct CorrectionProblem {
  const float* w = nullptr;       // [rows, cols], as the solver was given it
  const float* stored = nullptr;  // the same as it will be decoded
  std::int64_t rows = 0;
  // E[x] of the input, [cols], in the unquantized model and in the one that is being quantized,
  // there as it is rounded.
  std::span<const double> wanted_mean, mean;
  ThreadPool& pool;
};

// The points of a search: for each coordinate the index of one option.
using Choice = std::vector<int>;

struct SearchSpace {
  std::vector<std::string> coordinates;           // "attn_in", ...
  std::vector<std::vector<std::string>> options;  // labels, for each coordinate
  std::vector<Choice> starts;                     // compared first; the first one changes nothing
  bool descend = false;  // then improve the best start one coordinate at a time
  int max_rounds = 0;    // over all coordinates
};

// For transforms that only scale, and only once: matrices stay as they are.
struct Deferred {
  Scalings scalings;
  // column_magnitudes() of the sites that were looked at, before anything was scaled.
  std::map<std::string, std::vector<float>>& magnitudes;
};

// One block for a transform: float32 weights that may be changed in place, their sites, and the
// statistics of the inputs, which must be changed along.
struct TransformBlock {
  const ModelSpec& spec;
  std::vector<Site>& sites;
  LayerStatistics& statistics;
  // Of every site, for transforms that need them; empty for others.
  const std::map<std::string, Hessian>& hessians;
  // The format in which a linear will be stored.
  const std::function<FormatPtr(const Linear&)>& format_of;
  // To what its input will be rounded; null: to nothing.
  const std::function<ActivationFormatPtr(const Linear&)>& activations_of;
  ThreadPool& pool;
  // Type in which the norms are stored: producers' new weights should survive rounding to it.
  DType norm_type = DType::kF32;
  Deferred* deferred = nullptr;  // of an algorithm that `only_smooths`; or null
};

// The model for a rewrite.
struct RewriteSource {
  std::unique_ptr<Checkpoint> checkpoint;  // of plain weights, or quantizing it is refused later
  Backend& backend;                        // outlives the result
  std::vector<std::string>& notes;         // what could not be done as asked, to be said aloud
};

// Functions are pure and thread-safe; those that the kind does not need are null.
struct Algorithm {
  std::string name;
  std::string summary;
  StepKind kind = StepKind::kSolver;
  Needs needs;
  std::vector<ParameterSpec> parameters;

  // What it needs under these parameters; null when that is always `needs`.
  Needs (*needs_of)(const Parameters& parameters) = nullptr;
  // kSolver: the matrix as it will be stored. The result does not depend on the pool.
  // Formats that are more than a grid for each group of a row (scales of blocks of rows, fitted
  // tables, split columns) are for those with `solves_all`.
  bool solves_all = false;
  // kSolver: whether that is format->encode(w) and no more; null: never.
  bool (*only_encodes)(const Parameters& parameters) = nullptr;
  // The stored matrix may have another format than the problem, with planes of the same shapes.
  bool chooses_formats = false;
  // Also embedding and head, of whose inputs nothing is known; else they are rounded to nearest.
  bool solves_outside = false;
  Solution (*solve)(const SolverProblem& problem, const Parameters& parameters) = nullptr;
  // kSolver of Scope::kBlock: every linear whose format is no plain float. `solve` is for where no
  // inputs are known.
  std::map<const Linear*, Solution> (*solve_block)(BlockProblem& problem,
                                                   const Parameters& parameters) = nullptr;
  // kRewrite: a checkpoint that computes the same, made of the source while it is read.
  std::unique_ptr<Checkpoint> (*rewrite)(RewriteSource source,
                                         const Parameters& parameters) = nullptr;
  // kCorrection: what is to be added to the bias, [rows].
  std::vector<float> (*correct)(const CorrectionProblem& problem,
                                const Parameters& parameters) = nullptr;
  // kSearch: the points, for a model where these kinds of site can be smoothed.
  SearchSpace (*space)(const Parameters& parameters, std::span<const SiteKind> kinds) = nullptr;
  // kTransform and kSearch: weights are changed by smooth_site() alone, once a site, in the order
  // of the sites; so that can be deferred.
  bool only_smooths = false;
  // kTransform and kSearch: brings one block to a point of the space (kTransform: an empty choice).
  void (*transform)(TransformBlock& block, const Parameters& parameters, const SearchSpace& space,
                    const Choice& choice) = nullptr;
};

// The registry, in the order of registry.def.
const std::vector<Algorithm>& algorithms();
// Null when there is none of this name.
const Algorithm* find_algorithm(const std::string& name);

double number(const Parameters& parameters, const std::string& name);
bool flag(const Parameters& parameters, const std::string& name);
const std::string& text(const Parameters& parameters, const std::string& name);

}  // namespace nibble
