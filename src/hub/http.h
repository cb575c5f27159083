// HTTP requests that fetch, over libcurl.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::hub {

struct HttpRequest {
  std::string url;
  bool head = false;                      // no body is wanted
  std::vector<std::string> headers = {};  // "Range: bytes=5-"
  std::string token = {};                 // sent as a bearer token to the origin of `url` alone
  bool leave = true;                      // follow redirects to other origins
};

struct HttpReply {
  int status = 0;                              // 0: none came
  std::map<std::string, std::string> headers;  // names in lower case
  std::string url;                             // that answered
  std::string failure;  // empty when the whole reply came; else why it did not

  // Empty when there is none.
  std::string header(const std::string& name) const;
};

// Gets the body of a reply with status 200 or 206, piece by piece, the head being known.
using BodySink = std::function<void(const HttpReply& head, std::string_view piece)>;

// Sends one request. A connection that fails or is cut is no error but HttpReply::failure. Follows
// redirects, five at most, those within one origin (scheme, host, port) with the token, others
// without it. kCorrupt for redirects without end, to what is no http(s) or from https to http.
// Exceptions of `body` pass through. Thread-safe.
HttpReply http_fetch(const HttpRequest& request, const BodySink& body);

// Path segments and slashes as they stand in a URL ("a b/c" -> "a%20b/c"); with `slashes` these are
// escaped, too.
std::string url_escaped(std::string_view path, bool slashes = false);

// A URL without its query, which may hold a signature: for messages.
std::string without_query(const std::string& url);

// Where a redirect from `base` leads. kCorrupt as above.
std::string redirect_target(const std::string& base, const std::string& location);
bool same_origin(const std::string& a, const std::string& b);

}  // namespace nibble::hub
