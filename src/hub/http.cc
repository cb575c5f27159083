#include "hub/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <exception>
#include <memory>

#include "base/error.h"

namespace nibble::hub {
namespace {

constexpr int kMostRedirects = 5;
constexpr std::size_t kMostHeaders = 256;

struct CloseEasy {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
struct CloseUrl {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using Url = std::unique_ptr<CURLU, CloseUrl>;

void start_curl() {
  static const bool started = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  NIBBLE_CHECK(started);
}

// What the callbacks of one transfer share.
struct Transfer {
  CURL* easy;
  HttpReply reply;
  const BodySink& body;
  std::exception_ptr error = nullptr;
};

int status_of(CURL* easy) {
  long status = 0;
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  return static_cast<int>(status);
}

std::string_view header_text(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::size_t take_header(char* data, std::size_t size, std::size_t count, void* opaque) {
  auto& transfer = *static_cast<Transfer*>(opaque);
  const std::string_view line(data, size * count);
  try {
    HttpReply& reply = transfer.reply;
    if (line.starts_with("HTTP/")) {  // of an informational reply before the real one, perhaps
      reply.headers.clear();
      return size * count;
    }
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || reply.headers.size() >= kMostHeaders) {
      return size * count;
    }
    std::string name(line.substr(0, colon));
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    reply.headers[name] = header_text(line.substr(colon + 1));
  } catch (...) {
    transfer.error = std::current_exception();
    return 0;
  }
  return size * count;
}

std::size_t take_body(char* data, std::size_t size, std::size_t count, void* opaque) {
  auto& transfer = *static_cast<Transfer*>(opaque);
  transfer.reply.status = status_of(transfer.easy);
  try {
    const bool wanted = transfer.reply.status == 200 || transfer.reply.status == 206;
    if (wanted && transfer.body) transfer.body(transfer.reply, {data, size * count});
  } catch (...) {
    transfer.error = std::current_exception();
    return 0;
  }
  return size * count;
}

template <class Value>
void set(CURL* easy, CURLoption option, Value value) {
  NIBBLE_CHECK(curl_easy_setopt(easy, option, value) == CURLE_OK);
}

// One request, redirects not followed.
HttpReply fetch_once(const HttpRequest& request, const BodySink& body) {
  start_curl();
  const std::unique_ptr<CURL, CloseEasy> easy(curl_easy_init());
  NIBBLE_CHECK(easy != nullptr);
  std::unique_ptr<curl_slist, FreeList> headers;
  const auto add = [&](const std::string& header) {
    curl_slist* longer = curl_slist_append(headers.get(), header.c_str());
    NIBBLE_CHECK(longer != nullptr);
    headers.release();
    headers.reset(longer);
  };
  for (const std::string& header : request.headers) add(header);
  if (!request.token.empty()) add("Authorization: Bearer " + request.token);

  Transfer transfer{easy.get(), {}, body};
  char problem[CURL_ERROR_SIZE] = "";
  constexpr long kConnectSeconds = 30, kSilentSeconds = 60;
  set(easy.get(), CURLOPT_URL, request.url.c_str());
  set(easy.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  set(easy.get(), CURLOPT_NOBODY, request.head ? 1L : 0L);
  set(easy.get(), CURLOPT_HTTPHEADER, headers.get());
  set(easy.get(), CURLOPT_USERAGENT, "nibble/" NIBBLE_VERSION);
  set(easy.get(), CURLOPT_HEADERFUNCTION, take_header);
  set(easy.get(), CURLOPT_HEADERDATA, static_cast<void*>(&transfer));
  set(easy.get(), CURLOPT_WRITEFUNCTION, take_body);
  set(easy.get(), CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
  set(easy.get(), CURLOPT_ERRORBUFFER, problem);
  set(easy.get(), CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  set(easy.get(), CURLOPT_LOW_SPEED_LIMIT, 1L);
  set(easy.get(), CURLOPT_LOW_SPEED_TIME, kSilentSeconds);
  set(easy.get(), CURLOPT_NOSIGNAL, 1L);
  const CURLcode code = curl_easy_perform(easy.get());
  if (transfer.error != nullptr) std::rethrow_exception(transfer.error);
  HttpReply reply = std::move(transfer.reply);
  reply.status = status_of(easy.get());
  reply.url = request.url;
  if (code != CURLE_OK) reply.failure = problem[0] != 0 ? problem : curl_easy_strerror(code);
  return reply;
}

std::string part_of(const Url& url, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(url.get(), part, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) return "";
  std::string result = text;
  curl_free(text);
  return result;
}

// Null when it is no URL; relative ones are taken against `base`.
Url parse_url(const std::string& base, const std::string& text = "") {
  Url url(curl_url());
  NIBBLE_CHECK(url != nullptr);
  if (curl_url_set(url.get(), CURLUPART_URL, base.c_str(), 0) != CURLUE_OK) return nullptr;
  if (text.empty()) return url;
  return curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) == CURLUE_OK ? std::move(url)
                                                                              : nullptr;
}

bool is_redirect(const HttpReply& reply) {
  const int s = reply.status;
  return s == 301 || s == 302 || s == 303 || s == 307 || s == 308;
}

}  // namespace

std::string HttpReply::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

std::string without_query(const std::string& url) { return url.substr(0, url.find('?')); }

std::string url_escaped(std::string_view path, bool slashes) {
  std::string result;
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = std::isalnum(byte) != 0 || c == '-' || c == '_' || c == '.' || c == '~';
    if (plain || (c == '/' && !slashes)) {
      result += c;
    } else {
      result += fmt::format("%{:02X}", byte);
    }
  }
  return result;
}

bool same_origin(const std::string& a, const std::string& b) {
  const Url one = parse_url(a), other = parse_url(b);
  if (one == nullptr || other == nullptr) return false;
  return std::ranges::all_of(
      std::initializer_list<CURLUPart>{CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT},
      [&](CURLUPart p) { return part_of(one, p) == part_of(other, p); });
}

std::string redirect_target(const std::string& base, const std::string& location) {
  const Url target = location.empty() ? nullptr : parse_url(base, location);
  const std::string scheme = target == nullptr ? "" : part_of(target, CURLUPART_SCHEME);
  if (scheme != "http" && scheme != "https") {
    fail(ErrorKind::kCorrupt, "{}: a redirect to '{}', which is no http(s) address",
         without_query(base), without_query(location));
  }
  if (base.starts_with("https:") && scheme == "http") {
    fail(ErrorKind::kCorrupt, "{}: a redirect from https to http is not followed",
         without_query(base));
  }
  char* text = nullptr;
  NIBBLE_CHECK(curl_url_get(target.get(), CURLUPART_URL, &text, 0) == CURLUE_OK);
  std::string result = text;
  curl_free(text);
  return result;
}

HttpReply http_fetch(const HttpRequest& request, const BodySink& body) {
  HttpRequest next = request;
  for (int i = 0; i <= kMostRedirects; ++i) {
    HttpReply reply = fetch_once(next, body);
    if (!is_redirect(reply)) return reply;
    std::string target = redirect_target(next.url, reply.header("location"));
    if (!same_origin(next.url, target)) {
      if (!request.leave) return reply;
      next.token.clear();
    }
    next.url = std::move(target);
  }
  fail(ErrorKind::kCorrupt, "{}: more than {} redirects", without_query(request.url),
       kMostRedirects);
}

}  // namespace nibble::hub
