#include "hub/pull.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "hub/download.h"

namespace nibble::hub {
namespace {

constexpr std::size_t kLongestList = std::size_t{64} << 20;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string trimmed(std::string text) {
  const auto is_space = [](unsigned char c) { return c <= 32; };
  while (!text.empty() && is_space(static_cast<unsigned char>(text.back()))) text.pop_back();
  text.erase(text.begin(), std::ranges::find_if_not(text, is_space));
  return text;
}

class Pull {
 public:
  Pull(const RepositoryName& repository, const PullOptions& options, const ProgressSink& progress)
      : repository_(repository),
        options_(options),
        progress_(progress),
        folder_(options.cache / repository_folder(repository)) {
    download_.token = options.token;
    download_.wait = [this](std::int64_t seconds) { wait(seconds); };
    download_.arrived = [this](std::int64_t bytes) { count(bytes); };
  }

  PullReport run() {
    const std::string url =
        fmt::format("{}/api/models/{}/revision/{}?blobs=true", options_.endpoint, repository_.name,
                    url_escaped(repository_.revision, /*slashes=*/true));
    list_ = parse_repository_files(download_text(url, kLongestList, download_), url);
    std::erase_if(list_.files,
                  [&](const HubFile& f) { return !included(f.path, options_.include); });
    if (list_.files.empty()) {
      fail(ErrorKind::kUsage, "{}: no file of it matches --include", repository_.name);
    }
    report_.commit = list_.commit;
    report_.snapshot = folder_ / "snapshots" / list_.commit;
    for (const HubFile& file : list_.files) total_ += std::max<std::int64_t>(file.size, 0);
    fetch_all();
    remember_revision();
    report_.files = std::ssize(list_.files);
    report_.bytes = arrived_;
    report_.fetched = fetched_;
    return std::move(report_);
  }

 private:
  void fetch_all() {
    std::vector<std::thread> threads;
    const auto count = std::clamp<std::int64_t>(options_.jobs, 1, std::ssize(list_.files));
    for (std::int64_t i = 0; i < count; ++i) threads.emplace_back([this] { work(); });
    for (std::thread& thread : threads) thread.join();
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

  // Takes one file after the other until there are none, or one failed.
  void work() {
    try {
      for (std::size_t i = next_++; i < list_.files.size() && !stopped_; i = next_++) {
        fetch(list_.files[i]);
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!stopped_.exchange(true)) error_ = std::current_exception();
    }
  }

  void fetch(HubFile& file) {
    const std::string url = fmt::format("{}/{}/resolve/{}/{}", options_.endpoint, repository_.name,
                                        list_.commit, url_escaped(file.path));
    if (file.digest.empty()) ask(url, file);
    const std::filesystem::path locks = options_.cache / ".locks" / folder_.filename();
    if (download_blob(url, file, folder_ / "blobs" / file.digest, locks / (file.digest + ".lock"),
                      download_)) {
      ++fetched_;
    }
    link(file);
  }

  // Checksum and size of a file, which not every mirror lists.
  void ask(const std::string& url, HubFile& file) {
    const HttpReply reply = fetch_patiently(download_, [&](bool& /*progress*/) {
      HttpReply head =
          http_fetch({.url = url, .head = true, .token = options_.token, .leave = false}, {});
      constexpr int kRedirect = 3;
      if (head.status / 100 == kRedirect) head.status = 200;  // it leads to the content
      return head;
    });
    const bool linked = !reply.header("x-linked-etag").empty();
    file.digest = digest_of_etag(reply.header(linked ? "x-linked-etag" : "etag"));
    const std::string size = reply.header(linked ? "x-linked-size" : "content-length");
    std::int64_t bytes = -1;
    const auto [end, error] = std::from_chars(size.data(), size.data() + size.size(), bytes);
    if (error == std::errc{} && bytes >= 0 && end == size.data() + size.size()) file.size = bytes;
    if (file.digest.empty()) {
      fail(ErrorKind::kCorrupt, "{}: the server names no checksum (ETag); take another mirror",
           without_query(url));
    }
  }

  void link(const HubFile& file) {
    const std::filesystem::path path = report_.snapshot / file.path;
    const std::filesystem::path target =
        std::filesystem::relative(folder_ / "blobs" / file.digest, path.parent_path());
    std::error_code none;
    if (std::filesystem::read_symlink(path, none) == target) return;
    std::filesystem::create_directories(path.parent_path());
    std::filesystem::path fresh = path;
    fresh += ".link";
    std::filesystem::remove(fresh, none);
    std::filesystem::create_symlink(target, fresh);
    std::filesystem::rename(fresh, path);
  }

  void remember_revision() const {
    if (repository_.revision == list_.commit) return;
    const std::filesystem::path ref = folder_ / "refs" / repository_.revision;
    std::filesystem::create_directories(ref.parent_path());
    write_file_atomic(ref, list_.commit);
  }

  void wait(std::int64_t seconds) const {
    if (options_.wait) return options_.wait(seconds);
    for (std::int64_t tenth = 0; tenth < 10 * seconds && !stopped_; ++tenth) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

  void count(std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    if (stopped_) fail(ErrorKind::kDisk, "{}: stopped", repository_.name);
    arrived_ += bytes;
    nibble::progress(progress_, "pull", std::min(arrived_, std::max(total_, arrived_)),
                     std::max(total_, arrived_));
  }

  const RepositoryName& repository_;
  const PullOptions& options_;
  const ProgressSink& progress_;
  std::filesystem::path folder_;
  DownloadOptions download_;
  RepositoryFiles list_;
  PullReport report_;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<std::int64_t> fetched_ = 0;
  std::atomic<bool> stopped_ = false;
  std::mutex mutex_;  // of what follows
  std::int64_t arrived_ = 0;
  std::int64_t total_ = 0;
  std::exception_ptr error_ = nullptr;
};

std::filesystem::path hub_home() {
  if (const std::string home = environment("HF_HOME"); !home.empty()) return home;
  const std::string cache = environment("XDG_CACHE_HOME"), home = environment("HOME");
  if (cache.empty() && home.empty()) {
    fail(ErrorKind::kUsage, "no folder for the cache: set HF_HOME or give --cache-dir");
  }
  return (cache.empty() ? std::filesystem::path(home) / ".cache" : std::filesystem::path(cache)) /
         "huggingface";
}

std::string token_from_environment() {
  std::string token = environment("HF_TOKEN");
  if (token.empty()) {
    const std::string named = environment("HF_TOKEN_PATH");
    const std::filesystem::path file =
        named.empty() ? hub_home() / "token" : std::filesystem::path(named);
    if (std::filesystem::is_regular_file(file)) token = read_text_file(file);
  }
  token = trimmed(std::move(token));
  const bool odd = std::ranges::any_of(token, [](char c) { return c <= 32 || c == 127; });
  if (odd) fail(ErrorKind::kUsage, "HF_TOKEN is no token: it holds spaces or control characters");
  return token;
}

}  // namespace

PullOptions pull_options_from_environment() {
  PullOptions options;
  options.endpoint = environment("HF_ENDPOINT");
  if (options.endpoint.empty()) options.endpoint = "https://huggingface.co";
  while (options.endpoint.ends_with('/')) options.endpoint.pop_back();
  if (!options.endpoint.starts_with("https://") && !options.endpoint.starts_with("http://")) {
    fail(ErrorKind::kUsage, "HF_ENDPOINT is '{}', no http(s) address", options.endpoint);
  }
  options.token = token_from_environment();
  const std::string cache = environment("HF_HUB_CACHE");
  options.cache = cache.empty() ? hub_home() / "hub" : std::filesystem::path(cache);
  return options;
}

PullReport pull(const RepositoryName& repository, const PullOptions& options,
                const ProgressSink& progress) {
  try {
    return Pull(repository, options, progress).run();
  } catch (const std::filesystem::filesystem_error& e) {
    fail(ErrorKind::kDisk, "{}: {}", e.path1().string(), e.code().message());
  }
}

}  // namespace nibble::hub
