#include "checkpoint/synth.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "base/half.h"
#include "base/split_mix.h"
#include "base/suggest.h"
#include "checkpoint/staging.h"
#include "checkpoint/synth_tokenizer.h"
#include "checkpoint/writer.h"

namespace nibble {
namespace {

constexpr float kWeightStd = 0.02f;
constexpr float kNormStd = 0.05f;
constexpr float kOutlierGain = 8;
constexpr std::int64_t kColumnsPerOutlier = 512;
constexpr std::int64_t kChunkBytes = std::int64_t{4} << 20;

std::uint64_t stream_key(std::uint64_t seed, std::string_view name) {
  std::uint64_t key = mix_bits(seed);
  for (const char c : name) key = mix_bits(key ^ static_cast<unsigned char>(c));
  return key;
}

// The standard normal value below which a part p of the distribution lies, by bisection.
double normal_quantile(double p) {
  double low = -8, high = 8;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return low;
}

// A normal distribution as 65536 equally likely bf16 values: 16 random bits give one, which is many
// times faster than a transformation of uniform numbers.
using QuantileTable = std::array<std::uint16_t, 65536>;

std::unique_ptr<const QuantileTable> make_quantiles(float mean, float deviation) {
  auto table = std::make_unique<QuantileTable>();
  for (std::size_t i = 0; i < table->size(); ++i) {
    const double p = (static_cast<double>(i) + 0.5) / static_cast<double>(table->size());
    const double value = mean + deviation * normal_quantile(p);
    (*table)[i] = to_bf16(static_cast<float>(value)).bits;
  }
  return table;
}

// Elements [4 * first_word, 4 * first_word + out.size()) of the stream.
void fill(std::uint64_t key, std::uint64_t first_word, const QuantileTable& table,
          std::span<std::uint16_t> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::uint64_t word = random_word(key, first_word + i / 4);
    out[i] = table[(word >> (16 * (i % 4))) & 0xffff];
  }
}

std::vector<std::int64_t> outlier_columns(std::uint64_t key, std::int64_t cols) {
  std::vector<std::int64_t> columns;
  for (std::int64_t i = 0; i < std::max<std::int64_t>(1, cols / kColumnsPerOutlier); ++i) {
    columns.push_back(static_cast<std::int64_t>(random_word(~key, static_cast<std::uint64_t>(i)) %
                                                static_cast<std::uint64_t>(cols)));
  }
  std::ranges::sort(columns);
  columns.erase(std::unique(columns.begin(), columns.end()), columns.end());
  return columns;
}

// Rows of a tensor, in chunks that threads share.
class TensorFiller {
 public:
  TensorFiller(std::uint64_t seed, ThreadPool& pool, ShardedWriter& writer)
      : seed_(seed), pool_(pool), writer_(writer) {}

  void write(const StoredTensor& tensor) {
    const bool norm = tensor.shape.size() == 1;
    const std::int64_t cols = tensor.shape.back();
    const std::int64_t rows = norm ? 1 : tensor.shape[0];
    const std::uint64_t key = stream_key(seed_, tensor.name);
    const auto outliers = norm ? std::vector<std::int64_t>{} : outlier_columns(key, cols);
    const std::int64_t chunk = std::max<std::int64_t>(1, kChunkBytes / (2 * cols));
    // Every row begins a new word of the stream, so that rows do not depend on the chunks.
    const auto words_per_row = static_cast<std::uint64_t>((cols + 3) / 4);
    pool_.parallel_for(rows, chunk, [&](std::int64_t begin, std::int64_t end) {
      std::vector<std::uint16_t> buffer;
      for (std::int64_t first = begin; first < end; first += chunk) {
        const std::int64_t last = std::min(end, first + chunk);
        buffer.resize(static_cast<std::size_t>((last - first) * cols));
        for (std::int64_t r = first; r < last; ++r) {
          const auto row = std::span(buffer).subspan(static_cast<std::size_t>((r - first) * cols),
                                                     static_cast<std::size_t>(cols));
          fill(key, static_cast<std::uint64_t>(r) * words_per_row, norm ? *norms_ : *weights_, row);
          for (const std::int64_t c : outliers) {
            auto& bits = row[static_cast<std::size_t>(c)];
            bits = to_bf16(kOutlierGain * to_float(bf16{bits})).bits;
          }
        }
        writer_.write(tensor.name, static_cast<std::uint64_t>(first * cols) * 2,
                      std::as_bytes(std::span(buffer)));
      }
    });
  }

 private:
  std::uint64_t seed_;
  ThreadPool& pool_;
  ShardedWriter& writer_;
  std::unique_ptr<const QuantileTable> weights_ = make_quantiles(0, kWeightStd);
  std::unique_ptr<const QuantileTable> norms_ = make_quantiles(1, kNormStd);
};

}  // namespace

const std::vector<SynthShape>& synth_shapes() {
  // hidden, intermediate, layers, heads, kv heads, vocabulary, positions, rope theta
  static const std::vector<SynthShape> shapes = {
      {"tiny-llama", 64, 176, 2, 4, 2, 512, 256, 1e4},
      {"small-llama", 256, 704, 4, 8, 4, 4096, 1024, 1e4},
      {"tinyllama-1.1b", 2048, 5632, 22, 32, 4, 32000, 2048, 1e4},
      {"llama-2-7b", 4096, 11008, 32, 32, 32, 32000, 4096, 1e4},
      {"llama-3-8b", 4096, 14336, 32, 32, 8, 128256, 8192, 5e5},
      {"codellama-34b", 8192, 22016, 48, 64, 8, 32000, 16384, 1e6},
  };
  return shapes;
}

const SynthShape& find_synth_shape(const std::string& name) {
  std::vector<std::string> names;
  for (const SynthShape& shape : synth_shapes()) {
    if (name == shape.name) return shape;
    names.emplace_back(shape.name);
  }
  fail(ErrorKind::kUsage, "shape '{}' is unknown{}; known: {}", name, did_you_mean(name, names),
       fmt::join(names, ", "));
}

std::vector<StoredTensor> synth_tensors(const SynthShape& s) {
  const std::int64_t kv = s.hidden / s.heads * s.kv_heads;
  std::vector<StoredTensor> plan;
  const auto add = [&](const std::string& name, Shape shape) {
    plan.push_back({name + ".weight", DType::kBF16, std::move(shape)});
  };
  add("model.embed_tokens", {s.vocab, s.hidden});
  for (std::int64_t i = 0; i < s.layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    add(layer + "input_layernorm", {s.hidden});
    add(layer + "self_attn.q_proj", {s.hidden, s.hidden});
    add(layer + "self_attn.k_proj", {kv, s.hidden});
    add(layer + "self_attn.v_proj", {kv, s.hidden});
    add(layer + "self_attn.o_proj", {s.hidden, s.hidden});
    add(layer + "post_attention_layernorm", {s.hidden});
    add(layer + "mlp.gate_proj", {s.intermediate, s.hidden});
    add(layer + "mlp.up_proj", {s.intermediate, s.hidden});
    add(layer + "mlp.down_proj", {s.hidden, s.intermediate});
  }
  add("model.norm", {s.hidden});
  add("lm_head", {s.vocab, s.hidden});
  return plan;
}

Json synth_config(const SynthShape& s) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", s.hidden},
          {"intermediate_size", s.intermediate},
          {"num_hidden_layers", s.layers},
          {"num_attention_heads", s.heads},
          {"num_key_value_heads", s.kv_heads},
          {"head_dim", s.hidden / s.heads},
          {"vocab_size", s.vocab},
          {"max_position_embeddings", s.max_positions},
          {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", s.rope_theta},
          {"attention_bias", false},
          {"mlp_bias", false},
          {"tie_word_embeddings", false},
          {"bos_token_id", 1},
          {"eos_token_id", 2},
          {"torch_dtype", "bfloat16"}};
}

void synthesize(const std::filesystem::path& directory, const std::string& shape_name,
                std::uint64_t seed, ThreadPool& pool, const ProgressSink& sink,
                std::uint64_t max_shard_bytes) {
  const SynthShape& shape = find_synth_shape(shape_name);
  const std::vector<StoredTensor> plan = synth_tensors(shape);
  StagedDirectory staged(directory, fmt::format("synth {} {}", shape_name, seed));
  ShardedWriter writer(staged.path(), plan, max_shard_bytes);
  TensorFiller filler(seed, pool, writer);
  const auto total = static_cast<std::int64_t>(plan.size());
  for (std::int64_t i = 0; i < total; ++i) {
    const StoredTensor& tensor = plan[static_cast<std::size_t>(i)];
    progress(sink, tensor.name, i, total);
    filler.write(tensor);
  }
  progress(sink, "sync", total, total);
  writer.finish();
  write_config(staged.path(), synth_config(shape), nullptr);
  const auto write_json = [&](const char* name, const Json& json) {
    write_file_atomic(staged.path() / name, json.dump(1) + "\n");
  };
  write_json("tokenizer.json", synth_tokenizer(shape.vocab));
  write_json("tokenizer_config.json", synth_tokenizer_config(shape.max_positions));
  write_json("generation_config.json", {{"bos_token_id", 1}, {"eos_token_id", 2}});
  staged.commit();
}

}  // namespace nibble
