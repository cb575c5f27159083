#include "runtime/session.h"

#include "base/error.h"
#include "checkpoint/container/gguf.h"
#include "checkpoint/gguf_tokenizer.h"
#include "checkpoint/synth.h"
#include "checkpoint/synth_tokenizer.h"
#include "model/arch.h"
#include "model/tokenizer/chat_template.h"
#include "runtime/synthetic.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

Json read_generation_config(const fs::path& path) {
  const fs::path file = path / "generation_config.json";
  if (!fs::is_directory(path) || !fs::exists(file)) return Json::object();
  Json config = read_json_file(file.string());
  if (!config.is_object()) fail(ErrorKind::kCorrupt, "{}: not a JSON object", file.string());
  return config;
}

// The host's memory is not asked for room.
Room room_besides(const RoomRule& besides, const ModelSpec& spec, const KvFormat& kv_type,
                  Backend& backend) {
  return besides && !backend.memory().is_host() ? besides(spec, kv_type) : Room{};
}

}  // namespace

// Null for a checkpoint without (an encoder for `eval logits`, say): it is complete all the same.
std::unique_ptr<Tokenizer> open_tokenizer(const Checkpoint& checkpoint) {
  if (auto made = make_tokenizer(checkpoint.documents())) return made;
  const fs::path& path = checkpoint.path();
  if (!find_tokenizer(path)) return nullptr;
  try {
    return load_tokenizer(path);
  } catch (const Error& error) {
    // A single-file checkpoint may stand alone; load_tokenizer says kCorrupt when there is none.
    if (!fs::is_directory(path) && error.kind() == ErrorKind::kCorrupt) return nullptr;
    throw;
  }
}

std::unique_ptr<Tokenizer> require_tokenizer(const Checkpoint& checkpoint) {
  if (auto tokenizer = open_tokenizer(checkpoint)) return tokenizer;
  fail(ErrorKind::kCorrupt, "{}: no tokenizer here", checkpoint.path().string());
}

std::unique_ptr<Tokenizer> require_tokenizer(const fs::path& path) {
  if (is_gguf(path)) {  // which may hold a vocabulary alone
    const GgufFile file(path);
    const auto documents = tokenizer_from_gguf(file.header().metadata, path.string());
    if (documents) return make_tokenizer(*documents);
  }
  if (fs::exists(path) && !find_tokenizer(path)) {
    for (const CheckpointConvention& convention : checkpoint_conventions()) {
      if (!convention.probe(path)) continue;
      if (auto tokenizer = open_tokenizer(*convention.open(path))) return tokenizer;
      break;
    }
  }
  return load_tokenizer(path);
}

std::optional<std::string> chat_template_of(const Checkpoint& checkpoint) {
  const auto documents = checkpoint.documents();
  const auto config = documents.find("tokenizer_config.json");
  if (config != documents.end()) return chat_template_of(config->second);
  return load_chat_template(checkpoint.path());
}

const Tokenizer& Session::require_tokenizer() const {
  if (tokenizer == nullptr) {
    fail(ErrorKind::kUsage,
         "{}: the checkpoint has no tokenizer, so text cannot be used; add its tokenizer files",
         checkpoint == nullptr ? "model" : checkpoint->path().string());
  }
  return *tokenizer;
}

KvType default_kv_type(const WeightSource& source, const ModelSpec& spec) {
  const std::string name = find_prefix(spec, source) + spec.names.embed + ".weight";
  if (!source.has(name)) return KvType::kF32;  // stored in planes
  const DType dtype = source.tensor(name).dtype();
  return is_float_weight(dtype) ? kv_type_of(dtype) : KvType::kF32;
}

ModelFormat settle_scales(const ModelFormat& rounding, const WeightSource& source,
                          const ModelSpec& spec) {
  const bool bf16 = default_kv_type(source, spec) == KvType::kBF16;
  return with_half_scales(rounding, bf16 ? DType::kBF16 : DType::kF16);
}

Session open_session(const fs::path& path, Backend& backend, std::optional<KvFormat> kv_type,
                     const ModelFormat& rounding, const RoomRule& besides) {
  Session session;
  session.checkpoint = open_checkpoint(path);
  session.config = session.checkpoint->config();
  const ModelSpec spec = build_spec(session.config);
  if (!kv_type) kv_type = rounding.kv;
  session.kv_type = kv_type ? *kv_type : default_kv_type(*session.checkpoint, spec);
  // A file of a directory stands for all of it.
  session.generation_config = read_generation_config(session.checkpoint->path());
  session.tokenizer = open_tokenizer(*session.checkpoint);
  const Room room = room_besides(besides, spec, session.kv_type, backend);
  session.model = std::make_unique<Model>(spec, *session.checkpoint, backend,
                                          settle_scales(rounding, *session.checkpoint, spec), room);
  return session;
}

Session open_synthetic_session(const std::string& shape_name, Backend& backend,
                               std::optional<KvFormat> kv_type, const ModelFormat& format,
                               const RoomRule& besides) {
  const SynthShape& shape = find_synth_shape(shape_name);
  Session session;
  session.config = synth_config(shape);
  if (!kv_type) kv_type = format.kv;
  session.kv_type = kv_type.value_or(KvType::kBF16);
  session.tokenizer =
      make_tokenizer({{"tokenizer.json", synth_tokenizer(shape.vocab)},
                      {"tokenizer_config.json", synth_tokenizer_config(shape.max_positions)}});
  const ModelSpec spec = build_spec(session.config);
  const Room room = room_besides(besides, spec, session.kv_type, backend);
  session.model = std::make_unique<Model>(load_synthetic_model(shape_name, backend, format, room));
  return session;
}

}  // namespace nibble
