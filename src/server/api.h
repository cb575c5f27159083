// From requests to endpoints: routes, methods, content types, keys, and errors as JSON.
#pragma once

#include "server/http.h"
#include "server/service.h"

namespace nibble::server {

// The service must outlive the handler and every exchange. Thread-safe.
HttpHandler make_api(Service& service);

}  // namespace nibble::server
