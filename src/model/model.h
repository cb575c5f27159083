// The forward pass, for every architecture: embedding, blocks, head; whole or block by block.
//
// The block-by-block functions exist so that calibration needs one block in memory at a time; Model
// is all blocks loaded, and calls the same functions.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "formats/registry.h"
#include "formats/weight_source.h"
#include "model/kv_cache.h"
#include "model/room.h"
#include "model/spec.h"

namespace nibble {

struct LowRankProduct;

// A linear layer: its module name in the checkpoint, weight [out, in] and bias (F32 [out], or
// empty), and what its input is rounded to (null: nothing).
struct Linear {
  std::string module;
  LinearWeight weight;  // without what `added` holds
  Tensor bias;
  ActivationFormatPtr activations = nullptr;
  std::shared_ptr<const LowRankProduct> added = nullptr;  // null: nothing
  // Of a block's last linears, o and down: so many columns of the input at a time are multiplied by
  // a Hadamard matrix first, which is what sites see; 0: none.
  std::int64_t input_hadamard = 0;

  bool exists() const { return weight.canonical.format != nullptr; }
};

// A product that is added to a weight (formats/low_rank.h): y += (x in^T) out^T.
struct LowRankProduct {
  LinearWeight in;   // [rank, cols]
  LinearWeight out;  // [rows, rank]
};

// Weight and bias as F32 (empty when absent). `module` is the name without ".weight".
struct Norm {
  std::string module;
  Tensor weight;
  Tensor bias;
};

struct MlpWeights {
  Linear gate, up, gate_up, down;
};

struct LayerWeights {
  Norm attn_norm, attn_post_norm, mlp_norm, mlp_post_norm, q_norm, k_norm, q_a_norm, kv_a_norm;
  Linear q, k, v, qkv, q_a, kv_a, kv_b, o, router;
  std::vector<float> sinks;         // [heads] or empty
  MlpWeights mlp;                   // dense layers
  std::vector<MlpWeights> experts;  // mixtures of experts
  MlpWeights shared;                // the expert of every token
  std::vector<float> choice_bias;   // of the router, [experts] or empty

  // Every linear that exists, in a fixed order, the router left out.
  std::vector<Linear*> linears();
  // Every norm that exists, in a fixed order.
  std::vector<Norm*> norms();
};

// Weights of 16-bit types stay mapped (on the CPU); norms and biases become F32.
struct EmbeddingWeights {
  QuantTensor table;
  QuantTensor positions, token_types;  // format null when absent
  Norm norm;
  Linear project_in;
};

struct HeadWeights {
  Norm final_norm;
  Linear project_out;
  Linear head;  // shares the embedding's bytes when tied
};

// Tokens of one or more sequences, laid end to end. Frequencies of dynamic and longrope rotary
// embeddings follow first_position + rows; keys that a cache holds already stay as they are.
struct Batch {
  struct Sequence {
    std::int64_t rows = 0;            // tokens of this sequence in this call
    std::int64_t first_position = 0;  // of its first token (= what the cache holds already)
    KvCache* cache = nullptr;         // null: the call holds the whole sequence
  };
  std::vector<std::int32_t> ids;
  std::vector<Sequence> sequences;
  // Tokens that only the backend knows yet, in its memory: an id of -1 - k stands for chosen[k].
  const std::int32_t* chosen = nullptr;
  std::int64_t chosen_count = 0;

  static Batch single(std::vector<std::int32_t> ids, KvCache* cache = nullptr);
  // Equal windows without a cache.
  static Batch windows(std::vector<std::int32_t> ids, std::int64_t rows_each);
  std::int64_t rows() const { return static_cast<std::int64_t>(ids.size()); }
};

// Sees the input of each linear during a forward pass. `site` is a name of sites.h ("attn_in",
// "query_latent", "key_latent", "attn_out", "mlp_in", "mlp_down"). In a mixture of experts "mlp_in"
// has the rows that the router and a shared expert see, "mlp_in.3" and "mlp_down.3" those that were
// sent to expert 3, and "mlp_down.shared" all. x is [rows, cols],
// contiguous, in the host's memory or where on_device() says. One forward pass calls it several
// times for a site, with consecutive rows.
class SiteObserver {
 public:
  virtual ~SiteObserver() = default;
  // True: x lies in the memory of the backend that runs the pass.
  virtual bool on_device() const { return false; }
  virtual void on_input(const std::string& site, const float* x, std::int64_t rows,
                        std::int64_t cols) = 0;
};

// Loading: kCorrupt, naming the tensor, when it is not stored or its shape contradicts the spec.
//
// `rounding` says what weights are encoded in anew, whatever they are stored as (groups as
// fitting_format() makes them; kUnsupported, naming the module, when none fits), and what the
// inputs of the blocks' linear layers are rounded to (kUsage for static scales, which a rounding
// cannot give). Parts that are null, and caches, are left alone.
EmbeddingWeights load_embedding(const ModelSpec& spec, const WeightSource& source, Backend& backend,
                                const ModelFormat& rounding = {});
LayerWeights load_layer(const ModelSpec& spec, std::int64_t layer, const WeightSource& source,
                        Backend& backend, const ModelFormat& rounding = {});
// The same with every linear decoded into F32 of its own (not shared, not mapped): for transforms
// of the weights in place.
LayerWeights load_layer_f32(const ModelSpec& spec, std::int64_t layer, const WeightSource& source,
                            Backend& backend);
// Lets the backend take the canonical weights again, after they were changed in place.
void prepare_layer(LayerWeights& weights, Backend& backend);
// The layer, which lies in the host's memory, as this backend runs it; the original stays.
LayerWeights place_layer(LayerWeights weights, Backend& backend);
// The first of spec.names.prefixes under which the source has the embedding; kCorrupt when none.
std::string find_prefix(const ModelSpec& spec, const WeightSource& source);
HeadWeights load_head(const ModelSpec& spec, const EmbeddingWeights& embedding,
                      const WeightSource& source, Backend& backend,
                      const ModelFormat& rounding = {});

// hidden is [batch.rows(), spec.hidden]; it and the logits lie in the backend's memory. Ids outside
// the vocabulary and positions beyond spec.max_positions of a learned table are kUsage.
void run_embedding(const ModelSpec& spec, const EmbeddingWeights& weights, const Batch& batch,
                   Backend& backend, float* hidden);
void run_layer(const ModelSpec& spec, std::int64_t layer, const LayerWeights& weights,
               const Batch& batch, Backend& backend, float* hidden,
               SiteObserver* observer = nullptr);
// Hidden states after the last block [rows, spec.hidden] -> logits [rows, spec.vocab], the final
// norm included. (An encoder's result needs no head: its final hidden state.)
void run_head(const ModelSpec& spec, const HeadWeights& weights, const float* hidden,
              std::int64_t rows, Backend& backend, float* logits);

class Model {
 public:
  // On a device kDevice, before anything is loaded, unless there is room for it and what comes
  // besides.
  Model(ModelSpec spec, const WeightSource& source, Backend& backend,
        const ModelFormat& rounding = {}, const Room& besides = {});

  const ModelSpec& spec() const { return spec_; }
  Backend& backend() const { return backend_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }
  const EmbeddingWeights& embedding_weights() const { return embedding_; }
  const HeadWeights& head_weights() const { return head_; }

  // All results lie in the host's memory.
  //
  // Hidden state after the last block of every token, before the final norm, F32 [rows, hidden].
  // Appends to the caches.
  Tensor hidden(const Batch& batch) const;
  // Logits of every token, F32 [rows, vocab] (encoders: the last hidden state).
  Tensor logits(const Batch& batch) const;
  // Logits of the last token of each sequence, F32 [sequences, vocab].
  Tensor last_logits(const Batch& batch) const;
  // The token of the largest of them for each sequence, the lowest id among equals, chosen where
  // the logits are; -1 where they are broken (a NaN or +infinity, or nothing but -infinity).
  std::vector<std::int32_t> likeliest_tokens(const Batch& batch) const;
  // The same for tokens that `choices` choose, one a sequence (SampleArgs of ops/args.h).
  std::vector<std::int32_t> choose_tokens(const Batch& batch,
                                          std::span<const TokenChoice> choices) const;
  // The same into the backend's memory, for ops that are issued later: `chosen` may be where the
  // batch finds tokens. Returns once the work is issued.
  void choose_tokens(const Batch& batch, std::span<const TokenChoice> choices,
                     std::int32_t* chosen) const;
  // Whether issuing a step takes less time than the step: then the next one can be planned and
  // issued while it runs.
  bool runs_beside_host() const;
  // Logits of some rows of a hidden state: for callers that cannot hold [rows, vocab] at once. Both
  // in the host's memory.
  void head(const float* hidden, std::int64_t rows, float* logits) const;

 private:
  void run_blocks(const Batch& batch, float* hidden) const;
  // As one step: logits of the last token of each sequence, [sequences, vocab], then `finish`.
  void run_last(const Batch& batch, float* logits, const std::function<void()>& finish) const;
  ModelSpec spec_;
  Backend& backend_;
  EmbeddingWeights embedding_;
  std::vector<LayerWeights> layers_;
  HeadWeights head_;
};

}  // namespace nibble
