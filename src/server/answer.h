// What the answers of completions and chats share: the frame of their JSON, and server-sent events.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "server/api_error.h"
#include "server/generation.h"
#include "server/http.h"

namespace nibble::server {

// JSON of any text: bytes that are no UTF-8 become U+FFFD.
std::string dump(const Json& json);

HttpResponse json_response(const Json& json);

// Writes one answer, whole or as a stream of chunks ended by [DONE]. Used on the exchange's
// sequence of work.
class AnswerWriter {
 public:
  // `id_prefix` as in "cmpl"; objects are named `object`, chunks of a stream `chunk_object`.
  AnswerWriter(Service& service, std::shared_ptr<Exchange> exchange, const std::string& id_prefix,
               std::string object, std::string chunk_object, const GenerationRequest& request);

  bool streams() const { return streams_; }
  void begin();             // of a stream
  void chunk(Json choice);  // one choice's part of a stream
  // The end: all choices, or what a stream still owes.
  void finish(Json choices, const GenerationUsage& usage);
  void fail(const ApiError& error);

 private:
  Json frame(const std::string& object) const;

  std::shared_ptr<Exchange> exchange_;
  std::string id_;
  std::string object_;
  std::string chunk_object_;
  std::string model_;
  std::int64_t created_;
  bool streams_;
  bool include_usage_;
};

// Starts what an answer plans, and keeps it alive until its last event.
template <class A>
void start_answer(Service& service, const std::shared_ptr<Exchange>& exchange,
                  const std::shared_ptr<A>& answer) {
  Generation::start(
      service, exchange, answer->plan(),
      {.update = [answer](std::size_t i, EngineUpdate& update) { answer->update(i, update); },
       .done = [answer] { answer->done(); },
       .failed = [answer](const ApiError& error) { answer->fail(error); }});
  answer->begin();
}

// Says in the access log what a request held that means nothing here.
void note_ignored(Exchange& exchange, const std::vector<std::string>& members);

}  // namespace nibble::server
