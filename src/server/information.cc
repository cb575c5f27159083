// What a server says of itself: models, version, health, metrics, and the page.
#include <span>

#include "base/embedded.h"
#include "server/answer.h"
#include "server/endpoints.h"

namespace nibble {
std::span<const EmbeddedFile> server_files();
}  // namespace nibble

namespace nibble::server {
namespace {

constexpr std::string_view kModels = "/v1/models";

Json model_json(const Service& service, const std::string& name) {
  return {{"id", name},
          {"object", "model"},
          {"created", service.started()},
          {"owned_by", "nibble"},
          {"root", service.name()},
          {"parent", nullptr},
          {"max_model_len", service.max_model_len()}};
}

}  // namespace

void serve_models(Service& service, std::shared_ptr<Exchange> exchange) {
  const std::string& path = exchange->request().path;
  if (path.size() > kModels.size()) {
    const std::string name = path.substr(kModels.size() + 1);
    service.require_model(name);
    return exchange->respond(json_response(model_json(service, name)));
  }
  Json models = Json::array();
  for (const std::string& name : service.options().names) {
    models.push_back(model_json(service, name));
  }
  exchange->respond(json_response({{"object", "list"}, {"data", std::move(models)}}));
}

void serve_version(Service&, std::shared_ptr<Exchange> exchange) {
  exchange->respond(json_response({{"version", NIBBLE_VERSION}}));
}

void serve_health(Service&, std::shared_ptr<Exchange> exchange) { exchange->respond({}); }

void serve_metrics(Service& service, std::shared_ptr<Exchange> exchange) {
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = service.metrics().render(service.stats(), service.name());
  exchange->respond(std::move(response));
}

void serve_page(Service&, std::shared_ptr<Exchange> exchange) {
  HttpResponse response;
  response.content_type = "text/html; charset=utf-8";
  response.body = std::string(server_files().front().content);
  response.headers = {{"Content-Security-Policy",
                       "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
                       "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                       "frame-ancestors 'none'"},
                      {"Referrer-Policy", "no-referrer"}};
  exchange->respond(std::move(response));
}

}  // namespace nibble::server
