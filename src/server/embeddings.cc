#include <bit>
#include <chrono>
#include <cmath>
#include <span>
#include <utility>

#include "base/base64.h"
#include "server/answer.h"
#include "server/embedding_request.h"
#include "server/endpoints.h"

namespace nibble::server {
namespace {

// The first `count` values, if need be to a norm of 1.
std::vector<float> vector_of(std::vector<float> values, const EmbeddingRequest& request) {
  values.resize(static_cast<std::size_t>(request.dimensions));
  if (!request.normalize) return values;
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  if (squares == 0) return values;
  const double norm = std::sqrt(squares);
  for (float& value : values) value = static_cast<float>(value / norm);
  return values;
}

Json vector_json(const std::vector<float>& values, bool base64) {
  if (!base64) return values;
  static_assert(std::endian::native == std::endian::little);
  const auto bytes = std::as_bytes(std::span(values));
  return encode_base64({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

// The texts of one exchange. All of it runs on the exchange's sequence of work.
class EmbeddingAnswer : public std::enable_shared_from_this<EmbeddingAnswer> {
 public:
  EmbeddingAnswer(Service& service, std::shared_ptr<Exchange> exchange, EmbeddingRequest request)
      : service_(service), exchange_(std::move(exchange)), request_(std::move(request)) {}

  void start();

 private:
  std::vector<std::int32_t> encode(const Prompt& input) const;
  void submit(std::vector<std::vector<std::int32_t>> texts);
  void receive(std::size_t index, Embedding embedding);
  void finish();
  void cancel();

  Service& service_;
  std::shared_ptr<Exchange> exchange_;
  EmbeddingRequest request_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::vector<RequestId> ids_;
  std::vector<std::vector<float>> vectors_;
  std::size_t missing_ = 0;
  std::int64_t tokens_ = 0;
  bool over_ = false;
};

std::vector<std::int32_t> EmbeddingAnswer::encode(const Prompt& input) const {
  std::vector<std::int32_t> ids = service_.encode(input, request_.add_special_tokens);
  const std::int64_t most = service_.embedder().max_model_len();
  if (request_.truncate) {
    const std::int64_t kept = *request_.truncate < 0 ? most : *request_.truncate;
    if (std::ssize(ids) > kept) ids.resize(static_cast<std::size_t>(kept));
  }
  if (ids.empty()) throw ApiError(400, "a text has no tokens", "input");
  if (std::ssize(ids) <= most) return ids;
  throw ApiError(400,
                 fmt::format("a text has {} tokens, this model takes {}; shorten it or send "
                             "truncate_prompt_tokens: -1",
                             ids.size(), most),
                 "input", "context_length_exceeded");
}

void EmbeddingAnswer::start() {
  std::vector<std::vector<std::int32_t>> texts;
  for (const Prompt& input : request_.inputs) {
    texts.push_back(encode(input));
    tokens_ += std::ssize(texts.back());
    service_.metrics().prompt_tokens.observe(static_cast<double>(texts.back().size()));
  }
  missing_ = texts.size();
  vectors_.resize(texts.size());
  submit(std::move(texts));
  exchange_->on_gone([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->cancel();
  });
}

void EmbeddingAnswer::submit(std::vector<std::vector<std::int32_t>> texts) {
  try {
    for (std::size_t i = 0; i < texts.size(); ++i) {
      ids_.push_back(service_.embedder().submit(
          std::move(texts[i]), [self = shared_from_this(), i](Embedding embedding) {
            self->exchange_->post([self, i, embedding = std::move(embedding)]() mutable {
              self->receive(i, std::move(embedding));
            });
          }));
    }
  } catch (const Error& error) {
    cancel();
    if (error.kind() != ErrorKind::kUnsupported) throw;
    throw ApiError(429, error.what(), "", "queue_full");
  }
}

void EmbeddingAnswer::cancel() {
  over_ = true;
  for (const RequestId id : ids_) service_.embedder().cancel(id);
}

void EmbeddingAnswer::receive(std::size_t index, Embedding embedding) {
  if (over_) return;
  if (embedding.error) {
    cancel();
    service_.metrics().count_finished("error");
    exchange_->note("error", std::string(embedding.error->what()));
    return exchange_->respond(to_response(ApiError(500, embedding.error->what())));
  }
  vectors_[index] = vector_of(std::move(embedding.values), request_);
  if (--missing_ == 0) finish();
}

void EmbeddingAnswer::finish() {
  over_ = true;
  Json data = Json::array();
  for (std::size_t i = 0; i < vectors_.size(); ++i) {
    data.push_back({{"object", "embedding"},
                    {"index", i},
                    {"embedding", vector_json(vectors_[i], request_.base64)}});
  }
  service_.metrics().count_finished("stop");
  service_.metrics().end_to_end.observe(
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
  exchange_->note("prompt_tokens", tokens_);
  exchange_->respond(
      json_response({{"object", "list"},
                     {"data", std::move(data)},
                     {"model", request_.model.empty() ? service_.name() : request_.model},
                     {"usage", {{"prompt_tokens", tokens_}, {"total_tokens", tokens_}}}}));
}

}  // namespace

void serve_embeddings(Service& service, std::shared_ptr<Exchange> exchange) {
  const EmbeddingDefaults defaults = {service.options().defaults.vocab,
                                      service.embedder().dimensions(),
                                      service.options().normalize_embeddings};
  ParsedEmbedding parsed = parse_embedding(exchange->request().body, defaults);
  service.require_model(parsed.request.model);
  note_ignored(*exchange, parsed.ignored);
  std::make_shared<EmbeddingAnswer>(service, exchange, std::move(parsed.request))->start();
}

}  // namespace nibble::server
