// A model ready to run: checkpoint, weights and tokenizer together.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "model/model.h"
#include "model/tokenizer/tokenizer.h"

namespace nibble {

struct Session {
  std::unique_ptr<Checkpoint> checkpoint;  // null: random weights of a shape
  Json config;                             // config.json
  std::unique_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;  // null when the checkpoint has none (needed for text only)
  Json generation_config = Json::object();
  KvFormat kv_type = KvType::kF32;  // of KV caches: see default_kv_type()

  // kUsage, naming the checkpoint, when there is no tokenizer.
  const Tokenizer& require_tokenizer() const;
};

// The tokenizer of a checkpoint: its files, or what stands for them in it; null when there is none.
std::unique_ptr<Tokenizer> open_tokenizer(const Checkpoint& checkpoint);
// The same; kCorrupt when there is none.
std::unique_ptr<Tokenizer> require_tokenizer(const Checkpoint& checkpoint);
// The same for a path that may also be a tokenizer alone.
std::unique_ptr<Tokenizer> require_tokenizer(const std::filesystem::path& path);
// Its chat template, if it has one.
std::optional<std::string> chat_template_of(const Checkpoint& checkpoint);

// The type in which the checkpoint stores its embedding: what the model was trained or served in,
// so that keys and values fit its range and keep its precision. F32 when the embedding is stored
// otherwise. F16 caches are checked for overflow while they are used (generate.h).
KvType default_kv_type(const WeightSource& source, const ModelSpec& spec);

// Opens a checkpoint with everything that is needed to run it. `kv_type` overrides the
// default, and so does the cache format of `rounding`, which else is as Model has it. `besides`
// says what else must have room on a device; null: nothing. A damaged tokenizer or
// generation_config.json is an error; a missing one is not. The backend must outlive the session.
Session open_session(const std::filesystem::path& path, Backend& backend,
                     std::optional<KvFormat> kv_type = std::nullopt,
                     const ModelFormat& rounding = {}, const RoomRule& besides = {});

// A model of random weights (runtime/synthetic.h), parts that `format` leaves open in BF16, with a
// tokenizer that knows no language. kUsage for an unknown shape.
Session open_synthetic_session(const std::string& shape_name, Backend& backend,
                               std::optional<KvFormat> kv_type, const ModelFormat& format,
                               const RoomRule& besides = {});

// `rounding` with the type of scales that it leaves open: the 16-bit type of the checkpoint.
ModelFormat settle_scales(const ModelFormat& rounding, const WeightSource& source,
                          const ModelSpec& spec);

}  // namespace nibble
