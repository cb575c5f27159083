// A llama2.c checkpoint (the `.bin` of version 0), presented as a Hugging Face Llama.
// Source: karpathy/llama2.c, export.py (legacy_export) and run.c.
//
// Seven int32: dim, hidden_dim, layers, heads, kv_heads, vocab_size (negative: the classifier is
// not shared with the embedding), seq_len. Then float32 tensors, each for all layers at once; the
// two tables of rotary frequencies before the classifier are unused. Rotary embedding acts on
// adjacent pairs there and on half-split pairs here, so the rows of q and k are permuted.
#include <array>
#include <cstring>
#include <limits>
#include <map>

#include "base/mmap.h"
#include "checkpoint/checkpoint.h"

namespace nibble {
namespace {

constexpr std::uint32_t kVersionedMagic = 0x616b3432;  // "ak42", versions 1 and 2

struct Header {
  std::int32_t dim, hidden_dim, layers, heads, kv_heads, vocab_size, seq_len;
};

// Where a tensor lies, and how many heads' rows are to be permuted (0: none).
struct Slot {
  std::size_t offset = 0;
  Shape shape;
  std::int64_t heads = 0;
};

std::uint32_t first_word(std::span<const std::byte> bytes) {
  std::uint32_t word = 0;
  std::memcpy(&word, bytes.data(), sizeof word);
  return word;
}

Header read_header(const MappedFile& file) {
  Header header{};
  if (file.bytes().size() < sizeof header) {
    fail(ErrorKind::kCorrupt, "{}: {} bytes, too short for a llama2.c checkpoint",
         file.path().string(), file.bytes().size());
  }
  if (first_word(file.bytes()) == kVersionedMagic) {
    fail(ErrorKind::kUnsupported,
         "{}: a versioned llama2.c checkpoint; export it again with --version 0",
         file.path().string());
  }
  std::memcpy(&header, file.bytes().data(), sizeof header);
  constexpr std::int32_t kMaxDim = 1 << 24, kMaxLayers = 1 << 12;
  const auto in = [](std::int32_t value, std::int32_t most) { return value >= 1 && value <= most; };
  const bool sane = in(header.dim, kMaxDim) && in(header.hidden_dim, kMaxDim) &&
                    in(header.layers, kMaxLayers) && in(header.heads, header.dim) &&
                    in(header.kv_heads, header.heads) && header.dim % header.heads == 0 &&
                    header.heads % header.kv_heads == 0 && header.dim / header.heads % 2 == 0 &&
                    header.vocab_size != std::numeric_limits<std::int32_t>::min() &&
                    in(std::abs(header.vocab_size), kMaxDim) && in(header.seq_len, kMaxDim);
  if (!sane) {
    fail(
        ErrorKind::kCorrupt,
        "{}: header of a llama2.c checkpoint says dim {}, hidden {}, layers {}, heads {}, kv heads "
        "{}, vocabulary {}, length {}",
        file.path().string(), header.dim, header.hidden_dim, header.layers, header.heads,
        header.kv_heads, header.vocab_size, header.seq_len);
  }
  return header;
}

// Lays the tensors out in the order of the file. Dimensions are below 2^24, so one tensor is below
// 2^50 bytes; adding stops behind the end of the file, so that the sum stays below 2^63.
class Layout {
 public:
  Layout(const Header& h, std::size_t file_size) : file_size_(file_size) {
    const std::int64_t dim = h.dim, hidden = h.hidden_dim, vocab = std::abs(h.vocab_size);
    const std::int64_t head_dim = dim / h.heads, kv_dim = head_dim * h.kv_heads;
    add("model.embed_tokens.weight", {vocab, dim});
    add_layers(h, "input_layernorm", {dim});
    add_layers(h, "self_attn.q_proj", {dim, dim}, h.heads);
    add_layers(h, "self_attn.k_proj", {kv_dim, dim}, h.kv_heads);
    add_layers(h, "self_attn.v_proj", {kv_dim, dim});
    add_layers(h, "self_attn.o_proj", {dim, dim});
    add_layers(h, "post_attention_layernorm", {dim});
    add_layers(h, "mlp.gate_proj", {hidden, dim});
    add_layers(h, "mlp.down_proj", {dim, hidden});
    add_layers(h, "mlp.up_proj", {hidden, dim});
    add("model.norm.weight", {dim});
    take({h.seq_len, head_dim / 2});  // cosines
    take({h.seq_len, head_dim / 2});  // sines
    if (h.vocab_size < 0) add("lm_head.weight", {vocab, dim});
  }

  std::map<std::string, Slot> slots;
  std::size_t end() const { return offset_; }  // may lie behind the file

 private:
  void add(const std::string& name, const Shape& shape, std::int64_t heads = 0) {
    slots[name] = {take(shape), shape, heads};
  }
  void add_layers(const Header& h, const std::string& module, const Shape& shape,
                  std::int64_t heads = 0) {
    for (std::int32_t i = 0; i < h.layers; ++i) {
      add(fmt::format("model.layers.{}.{}.weight", i, module), shape, heads);
    }
  }
  std::size_t take(const Shape& shape) {
    const std::size_t begin = offset_;
    if (offset_ <= file_size_) {
      offset_ += static_cast<std::size_t>(element_count(shape)) * sizeof(float);
    }
    return begin;
  }

  std::size_t file_size_;
  std::size_t offset_ = sizeof(Header);
};

Json make_config(const Header& h) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", h.dim},
          {"intermediate_size", h.hidden_dim},
          {"num_hidden_layers", h.layers},
          {"num_attention_heads", h.heads},
          {"num_key_value_heads", h.kv_heads},
          {"head_dim", h.dim / h.heads},
          {"vocab_size", std::abs(h.vocab_size)},
          {"max_position_embeddings", h.seq_len},
          {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"attention_bias", false},
          {"mlp_bias", false},
          {"tie_word_embeddings", h.vocab_size > 0},
          {"bos_token_id", 1},
          {"eos_token_id", {1, 2}},  // run.c stops at BOS, which separates stories
          {"torch_dtype", "float32"}};
}

class Llama2cCheckpoint final : public Checkpoint {
 public:
  explicit Llama2cCheckpoint(const std::filesystem::path& path)
      : file_(MappedFile::open(path)), header_(read_header(*file_)), config_(make_config(header_)) {
    Layout layout(header_, file_->bytes().size());
    if (layout.end() != file_->bytes().size()) {
      fail(ErrorKind::kCorrupt, "{}: {} bytes, the header asks for {}{}", path.string(),
           file_->bytes().size(), layout.end(),
           layout.end() > file_->bytes().size() ? " or more (truncated?)" : "");
    }
    slots_ = std::move(layout.slots);
  }

  bool has(const std::string& name) const override { return slots_.contains(name); }

  Tensor tensor(const std::string& name) const override {
    const auto found = slots_.find(name);
    if (found == slots_.end()) {
      fail(ErrorKind::kCorrupt, "{}: no tensor '{}'", path().string(), name);
    }
    const Slot& slot = found->second;
    const std::size_t size = static_cast<std::size_t>(element_count(slot.shape)) * sizeof(float);
    Tensor stored =
        Tensor::view(DType::kF32, slot.shape, file_->bytes().subspan(slot.offset, size), file_);
    return slot.heads == 0 ? stored : split_halves(stored, slot.heads);
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, slot] : slots_) names.push_back(name);
    return names;
  }

  bool has_linear(const std::string& module) const override { return has(module + ".weight"); }
  QuantTensor linear(const std::string& module) const override {
    Tensor weight = tensor(module + ".weight");
    if (weight.shape().size() != 2) {
      fail(ErrorKind::kCorrupt, "tensor '{}.weight': no matrix", module);
    }
    return dense(std::move(weight));
  }

  std::string convention() const override { return "llama2c"; }
  const std::filesystem::path& path() const override { return file_->path(); }
  const Json& config() const override { return config_; }

  // The tokenizer beside it: tok<vocab>.bin, or tokenizer.bin.
  std::vector<std::string> companion_files() const override {
    const std::filesystem::path folder = path().parent_path();
    for (const std::string& name :
         {fmt::format("tok{}.bin", std::abs(header_.vocab_size)), std::string("tokenizer.bin")}) {
      if (std::filesystem::is_regular_file(folder / name)) return {name};
    }
    return {};
  }

 private:
  // Row 2i of each head moves to row i, row 2i + 1 to row i + head_dim / 2.
  static Tensor split_halves(const Tensor& stored, std::int64_t heads) {
    Tensor split = Tensor::allocate(DType::kF32, stored.shape());
    const std::int64_t head_dim = stored.dim(0) / heads, half = head_dim / 2;
    const auto row_bytes = static_cast<std::size_t>(stored.dim(1)) * sizeof(float);
    auto* out = split.mutable_data<float>();
    for (std::int64_t row = 0; row < stored.dim(0); ++row) {
      const std::int64_t head = row / head_dim, i = row % head_dim;
      const std::int64_t target = head * head_dim + i / 2 + (i % 2) * half;
      std::memcpy(out + target * stored.dim(1), stored.rows(row, row + 1).bytes().data(),
                  row_bytes);
    }
    return split;
  }

  std::shared_ptr<const MappedFile> file_;
  Header header_;
  Json config_;
  std::map<std::string, Slot> slots_;
};

}  // namespace

bool probe_llama2c(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path) || path.extension() != ".bin") return false;
  const auto file = MappedFile::open(path);
  constexpr std::uint32_t kZip = 0x04034b50;  // pickled PyTorch files are zip archives
  return file->bytes().size() < sizeof(Header) || first_word(file->bytes()) != kZip;
}

std::unique_ptr<Checkpoint> open_llama2c(const std::filesystem::path& path) {
  return std::make_unique<Llama2cCheckpoint>(path);
}

}  // namespace nibble
