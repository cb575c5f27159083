// Speed of a model, and its share of what the machine can do.
#pragma once

#include <cstdint>
#include <functional>

#include "base/log.h"
#include "model/model.h"

namespace nibble {

struct BenchOptions {
  std::int64_t prompt = 512;     // tokens of each sequence in the prefill; >= 1
  std::int64_t generated = 128;  // tokens of each sequence that are decoded; >= 0
  std::int64_t batch = 1;        // sequences that run together; >= 1
  // Tokens of each sequence already in the cache before decoding. They are rows of random numbers:
  // the speed of a step does not depend on what they say.
  std::int64_t context = 0;
  std::int64_t repetitions = 3;  // each measurement is the best of these; >= 1
  KvFormat kv_type = KvType::kBF16;
  // What the machine was measured to do, all threads together, 0 or null = not known: bytes read
  // from memory, and operations of a kind a second (a multiply-add is two).
  double bytes_per_second = 0;
  std::function<double(Arithmetic)> operations_per_second;
};

// What one step must do at least, whatever the kernels.
struct StepCost {
  double weight_bytes = 0;  // of the linear layers that a token uses, and the head
  double weight_flops = 0;  // of the same, for one token
};
StepCost step_cost(const Model& model);

// Fractions are 0 when the limit is not known. Decoding is held against memory bandwidth (weights
// read once a step, keys and values of every sequence), prefill against arithmetic (linear layers
// of every token, the head of the last, attention over half the prompt). A model that fits the
// caches can pass 1.
struct BenchResult {
  double pp_tokens_per_second = 0;
  double tg_tokens_per_second = 0;  // of all sequences together
  double bandwidth_fraction = 0;
  double arithmetic_fraction = 0;
  Arithmetic arithmetic = Arithmetic::kFloat32;  // of the prefill: which peak the fraction is of
  double operations_per_second = 0;              // that peak
  StepCost cost;
  double kv_bytes = 0;  // keys and values that a decode step reads, all sequences
};

// What a measurement needs on a device beside the weights: all keys and values, and the largest
// step. Errors as bench()'s.
Room bench_room(const ModelSpec& spec, const BenchOptions& options);

// Random ids. kUsage for options outside their ranges, encoders, or more tokens than a learned
// table of positions has.
BenchResult bench(const Model& model, const BenchOptions& options,
                  const ProgressSink& progress = {});

}  // namespace nibble
