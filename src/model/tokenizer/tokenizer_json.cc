// tokenizer.json of the Hugging Face `tokenizers` library.
#include <map>

#include "base/error.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/loaders.h"
#include "model/tokenizer/pipeline.h"

namespace nibble {
namespace {

constexpr const char* kWhat = "tokenizer.json";
constexpr const char* kModel = "tokenizer.json: model";

struct LoadedModel {
  std::shared_ptr<Vocab> vocab;
  std::unique_ptr<SubwordModel> model;
};

// {"piece": id, ...}
std::shared_ptr<Vocab> vocab_of_object(const Json& model, std::int64_t extra) {
  const Json& json = field(model, "vocab", kModel);
  if (!json.is_object()) fail(ErrorKind::kCorrupt, "{}: 'vocab' is not an object", kModel);
  if (json.empty()) fail(ErrorKind::kCorrupt, "{}: the vocabulary is empty", kModel);
  auto vocab = std::make_shared<Vocab>(static_cast<std::int64_t>(json.size()) + extra, kModel);
  for (const auto& [piece, id] : json.items()) {
    if (!id.is_number_integer()) {
      fail(ErrorKind::kCorrupt, "{}: the id of '{}' is not an integer", kModel, piece);
    }
    vocab->add(piece,
               id.is_number_unsigned() && id > INT32_MAX ? INT32_MAX : id.get<std::int64_t>());
  }
  return vocab;
}

// "a b", or ["a", "b"] where pieces hold spaces.
std::pair<std::string, std::string> merge_of(const Json& json) {
  if (json.is_string()) {
    const std::string& text = json.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  } else if (json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string()) {
    return {json[0].get<std::string>(), json[1].get<std::string>()};
  }
  fail(ErrorKind::kCorrupt, "{}: {} is no merge of two pieces", kModel, json.dump().substr(0, 64));
}

LoadedModel load_bpe(const Json& json, std::int64_t extra) {
  const Json& dropout = field(json, "dropout", kModel);
  if (dropout.is_number() && dropout.get<double>() > 0) {
    fail(ErrorKind::kUnsupported, "{}: BPE with dropout is random", kModel);
  }
  BpeOptions options;
  options.unk_token = string_field_or(json, "unk_token", "", kModel);
  options.continuing_subword_prefix =
      string_field_or(json, "continuing_subword_prefix", "", kModel);
  options.end_of_word_suffix = string_field_or(json, "end_of_word_suffix", "", kModel);
  options.fuse_unk = bool_field_or(json, "fuse_unk", false, kModel);
  options.byte_fallback = bool_field_or(json, "byte_fallback", false, kModel);
  options.ignore_merges = bool_field_or(json, "ignore_merges", false, kModel);
  BpeMerges merges;
  for (const Json& merge : array_field(json, "merges", kModel)) merges.push_back(merge_of(merge));
  LoadedModel made;
  made.vocab = vocab_of_object(json, extra);
  made.model = make_bpe(made.vocab, merges, options);
  return made;
}

LoadedModel load_unigram(const Json& json, std::int64_t extra) {
  const Json& pieces = array_field(json, "vocab", kModel);
  if (pieces.empty()) fail(ErrorKind::kCorrupt, "{}: the vocabulary is empty", kModel);
  LoadedModel made;
  made.vocab = std::make_shared<Vocab>(static_cast<std::int64_t>(pieces.size()) + extra, kModel);
  std::vector<double> scores;
  for (const Json& piece : pieces) {
    if (!piece.is_array() || piece.size() != 2 || !piece[0].is_string() || !piece[1].is_number()) {
      fail(ErrorKind::kCorrupt, "{}: {} is no [piece, score]", kModel, piece.dump().substr(0, 64));
    }
    made.vocab->add(piece[0].get_ref<const std::string&>(),
                    static_cast<std::int64_t>(scores.size()));
    scores.push_back(piece[1].get<double>());
  }
  UnigramOptions options;
  options.byte_fallback = bool_field_or(json, "byte_fallback", false, kModel);
  if (!field(json, "unk_id", kModel).is_null()) {
    const std::int64_t unk = int_field(json, "unk_id", kModel);
    if (unk < 0 || unk >= made.vocab->size()) {
      fail(ErrorKind::kCorrupt, "{}: unk_id {} is out of range", kModel, unk);
    }
    options.unk_id = static_cast<std::int32_t>(unk);
  }
  made.model = make_unigram(made.vocab, std::move(scores), options);
  return made;
}

LoadedModel load_wordpiece(const Json& json, std::int64_t extra) {
  WordPieceOptions options;
  options.unk_token = string_field_or(json, "unk_token", options.unk_token, kModel);
  options.continuing_subword_prefix =
      string_field_or(json, "continuing_subword_prefix", options.continuing_subword_prefix, kModel);
  options.max_input_chars_per_word =
      int_field_or(json, "max_input_chars_per_word", options.max_input_chars_per_word, kModel);
  LoadedModel made;
  made.vocab = vocab_of_object(json, extra);
  made.model = make_wordpiece(made.vocab, options);
  return made;
}

LoadedModel load_wordlevel(const Json& json, std::int64_t extra) {
  LoadedModel made;
  made.vocab = vocab_of_object(json, extra);
  made.model = make_wordlevel(made.vocab, string_field_or(json, "unk_token", "<unk>", kModel));
  return made;
}

// Older files do not name the type; it shows in the fields.
std::string model_type(const Json& json) {
  if (!field(json, "type", kModel).is_null()) return string_field(json, "type", kModel);
  if (json.contains("merges")) return "BPE";
  if (field(json, "vocab", kModel).is_array()) return "Unigram";
  return json.contains("continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

// extra: how many more tokens the vocabulary will hold.
LoadedModel load_model(const Json& json, std::int64_t extra) {
  const std::string type = model_type(json);
  if (type == "BPE") return load_bpe(json, extra);
  if (type == "Unigram") return load_unigram(json, extra);
  if (type == "WordPiece") return load_wordpiece(json, extra);
  if (type == "WordLevel") return load_wordlevel(json, extra);
  fail(ErrorKind::kUnsupported, "{}: type '{}'", kModel, type);
}

const Json& added_tokens_of(const Json& json) {
  static const Json kNone = Json::array();
  const Json& list = field(json, "added_tokens", kWhat);
  return list.is_null() ? kNone : array_field(json, "added_tokens", kWhat);
}

// Gives every added token its place in the vocabulary.
void place_added_tokens(const std::vector<AddedToken>& tokens, Vocab& vocab) {
  std::map<std::int64_t, std::string> placed;
  for (const AddedToken& token : tokens) {
    const auto [it, fresh] = placed.emplace(token.id, token.content);
    if (!fresh && it->second != token.content) {
      fail(ErrorKind::kCorrupt, "{}: added tokens '{}' and '{}' share the id {}", kWhat, it->second,
           token.content, token.id);
    }
    vocab.set(token.content, token.id);
  }
}

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_around_model(const Json& json, const TokenizerConfig& config,
                                                  std::shared_ptr<Vocab> vocab,
                                                  std::unique_ptr<SubwordModel> model) {
  PipelineParts parts;
  for (const Json& token : added_tokens_of(json)) {
    parts.added_tokens.push_back(parse_added_token(token, int_field(token, "id", kWhat), kWhat));
  }
  merge_added_tokens(config, *vocab, parts.added_tokens);
  place_added_tokens(parts.added_tokens, *vocab);
  parts.normalizer = make_normalizer(field(json, "normalizer", kWhat));
  parts.pre_tokenizer = make_pre_tokenizer(field(json, "pre_tokenizer", kWhat));
  parts.post_processor = make_post_processor(field(json, "post_processor", kWhat), *vocab);
  parts.decoder = make_decoder(field(json, "decoder", kWhat));
  const EdgeTokens edges = find_edge_tokens(config, *vocab);
  apply_edge_tokens(config, edges, parts.post_processor);
  if (config.has_class("HybridDNATokenizer")) parts.dna = DnaSpans::of(vocab);
  parts.bos = edges.bos;
  parts.eos = edges.eos;
  parts.vocab = std::move(vocab);
  parts.model = std::move(model);
  return make_pipeline(std::move(parts));
}

std::unique_ptr<Tokenizer> tokenizer_from_json(const Json& json, const TokenizerConfig& config) {
  const std::size_t extra = added_tokens_of(json).size() + config.added_tokens.size();
  LoadedModel loaded = load_model(field(json, "model", kWhat), static_cast<std::int64_t>(extra));
  return tokenizer_around_model(json, config, std::move(loaded.vocab), std::move(loaded.model));
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::map<std::string, Json>& documents) {
  const auto tokenizer = documents.find(kWhat);
  if (tokenizer == documents.end()) return nullptr;
  const auto document = [&](const char* name) {
    const auto found = documents.find(name);
    return found == documents.end() ? Json(Json::object()) : found->second;
  };
  return tokenizer_from_json(
      tokenizer->second, make_tokenizer_config(document("tokenizer_config.json"), Json::object(),
                                               document("config.json"), "checkpoint"));
}

std::unique_ptr<Tokenizer> load_tokenizer_json(const std::filesystem::path& file_path) {
  return tokenizer_from_json(read_json_file(file_path.string()),
                             read_tokenizer_config(file_path.parent_path()));
}

}  // namespace nibble
