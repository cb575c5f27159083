// Text to token ids and back.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace nibble {

struct EncodeOptions {
  bool add_special = true;    // BOS/EOS/CLS/SEP as the tokenizer's post-processor says
  bool parse_special = true;  // text that spells a special token becomes that token
};

// Immutable and thread-safe. Text that is not valid UTF-8 is kUsage; huge input takes linear time.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::vector<std::int32_t> encode(std::string_view text,
                                           const EncodeOptions& options = {}) const = 0;
  // Text of a whole sequence. Ids outside the vocabulary are kUsage.
  virtual std::string decode(const std::vector<std::int32_t>& ids,
                             bool skip_special = true) const = 0;

  virtual std::int64_t vocab_size() const = 0;
  // The piece as the vocabulary spells it ("Ġthe", "▁the", "<0x0A>").
  virtual std::string piece(std::int32_t id) const = 0;
  virtual std::optional<std::int32_t> piece_id(std::string_view piece) const = 0;
  virtual bool is_special(std::int32_t id) const = 0;
  virtual std::optional<std::int32_t> bos() const = 0;
  virtual std::optional<std::int32_t> eos() const = 0;
};

// Decodes token by token: push() returns the text that became certain, never part of a UTF-8
// character; flush() what is left. The concatenation equals decode() of all ids. Keeps a reference
// to the tokenizer.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true);
  std::string push(std::int32_t id);
  std::string flush();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  void move_window(const std::string& text);

  std::vector<std::int32_t> ids_;  // the window that is decoded again at every step
  std::string emitted_;            // what those ids have given so far
  std::size_t next_move_ = 24;     // window length at which old ids are dropped
};

// The tokenizer file of a checkpoint: a directory (tokenizer.json, tokenizer.model, vocab.json with
// merges.txt, vocab.txt, tokenizer.bin or the only tok*.bin) or a file itself. Nothing when there
// is none.
std::optional<std::filesystem::path> find_tokenizer(const std::filesystem::path& path);

// Loads what find_tokenizer() finds; tokenizer_config.json beside it refines. A llama2.c `.bin` may
// be the tokenizer or a checkpoint that has it beside it. kCorrupt when there is none or it is
// damaged; kUnsupported for parts that nibble does not know.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

// The same from contents by name, for checkpoints that hold them in another form: tokenizer.json,
// and tokenizer_config.json and config.json if there are any. Null without the first.
std::unique_ptr<Tokenizer> make_tokenizer(const std::map<std::string, Json>& documents);

}  // namespace nibble
