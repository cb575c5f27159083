// The endpoints; one file a family. Each answers its exchange, now or later, or throws ApiError or
// Error before it has begun to.
#pragma once

#include <memory>

#include "server/http.h"
#include "server/service.h"

namespace nibble::server {

void serve_completion(Service& service, std::shared_ptr<Exchange> exchange);
void serve_chat(Service& service, std::shared_ptr<Exchange> exchange);
void serve_embeddings(Service& service, std::shared_ptr<Exchange> exchange);
void serve_tokenize(Service& service, std::shared_ptr<Exchange> exchange);
void serve_detokenize(Service& service, std::shared_ptr<Exchange> exchange);
void serve_models(Service& service, std::shared_ptr<Exchange> exchange);
void serve_version(Service& service, std::shared_ptr<Exchange> exchange);
void serve_health(Service& service, std::shared_ptr<Exchange> exchange);
void serve_metrics(Service& service, std::shared_ptr<Exchange> exchange);
void serve_page(Service& service, std::shared_ptr<Exchange> exchange);

}  // namespace nibble::server
