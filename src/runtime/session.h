// A model ready to run: checkpoint, weights and tokenizer together.
#pragma once

#include <filesystem>
#include <memory>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "model/model.h"
#include "model/tokenizer/tokenizer.h"

namespace nibble {

struct Session {
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;  // null when the checkpoint has none (needed for text only)
  Json generation_config = Json::object();

  // kUsage, naming the checkpoint, when there is no tokenizer.
  const Tokenizer& require_tokenizer() const;
};

// The backend must outlive the session.
Session open_session(const std::filesystem::path& path, Backend& backend);

}  // namespace nibble
