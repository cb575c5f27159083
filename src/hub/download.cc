#include "hub/download.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "hub/digest.h"

namespace nibble::hub {
namespace {

constexpr int kMostAttempts = 6;
constexpr std::int64_t kLongestWait = 900;

bool asks_for_patience(int status) {
  return status == 429 || status == 500 || (status >= 502 && status <= 504);
}

[[noreturn]] void fail_for_good(const HttpReply& reply) {
  const std::string url = without_query(reply.url);
  switch (reply.status) {
    case 401:
      fail(ErrorKind::kUsage,
           "{}: not without a token (401): the model does not exist, or is private; set HF_TOKEN "
           "to a token of an account that may read it",
           url);
    case 403:
      fail(ErrorKind::kUsage,
           "{}: refused (403): accept the conditions of the model on its page, with the account "
           "that HF_TOKEN is of",
           url);
    case 404:
      fail(ErrorKind::kUsage, "{}: not there (404); check the name and the revision", url);
    default:
      break;
  }
  const std::string what =
      reply.failure.empty() ? fmt::format("status {}", reply.status) : reply.failure;
  fail(ErrorKind::kDisk, "{}: {}; the same command goes on where it stopped", url, what);
}

// Holds a file locked, against other processes too, as huggingface_hub does.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& path) {
    std::filesystem::create_directories(path.parent_path());
    constexpr mode_t kMode = 0666;
    descriptor_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kMode);
    if (descriptor_ < 0 || flock(descriptor_, LOCK_EX) != 0) {
      if (descriptor_ >= 0) close(descriptor_);
      fail(ErrorKind::kDisk, "{}: cannot be locked", path.string());
    }
  }
  ~FileLock() { close(descriptor_); }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_;
};

std::int64_t size_of(const std::filesystem::path& path) {
  std::error_code missing;
  const std::uintmax_t size = std::filesystem::file_size(path, missing);
  return missing ? 0 : static_cast<std::int64_t>(size);
}

// "bytes 5-9/10": the first byte.
std::optional<std::int64_t> first_byte(const std::string& content_range) {
  constexpr std::string_view kUnit = "bytes ";
  if (!content_range.starts_with(kUnit)) return std::nullopt;
  std::int64_t first = 0;
  const char* const begin = content_range.data() + kUnit.size();
  const char* const end = content_range.data() + content_range.size();
  const auto [rest, error] = std::from_chars(begin, end, first);
  if (error != std::errc{} || rest == end || *rest != '-') return std::nullopt;
  return first;
}

// A file that grows. One request after the other; what was written stays whatever becomes of them.
class PartialFile {
 public:
  PartialFile(const HubFile& file, std::filesystem::path path, const DownloadOptions& options)
      : file_(file), path_(std::move(path)), options_(options), size_(size_of(path_)) {
    if (file_.size >= 0 && size_ > file_.size) drop();
    count(size_);
  }

  bool whole() const { return file_.size >= 0 && size_ == file_.size; }
  const std::filesystem::path& path() const { return path_; }

  HttpReply fetch(HttpRequest request, bool& progress) {
    const std::int64_t before = size_;
    if (size_ > 0) request.headers.push_back(fmt::format("Range: bytes={}-", size_));
    open_ = false;
    HttpReply reply = http_fetch(
        request, [&](const HttpReply& head, std::string_view piece) { write(head, piece); });
    out_.close();
    progress = size_ > before;
    constexpr int kRangeNotSatisfiable = 416;
    if (reply.status == kRangeNotSatisfiable) {  // what lies here is not of this file
      drop();
      reply.failure = "the file has another size";
    }
    const bool came = reply.status == 200 || reply.status == 206;
    if (came && reply.failure.empty() && file_.size > size_) reply.failure = "the answer is short";
    return reply;
  }

  void drop() {
    count(-std::exchange(size_, 0));
    std::error_code missing;
    std::filesystem::remove(path_, missing);
  }

 private:
  void count(std::int64_t bytes) const {
    if (options_.arrived && bytes != 0) options_.arrived(bytes);
  }

  void write(const HttpReply& head, std::string_view piece) {
    if (!open_) start(head);
    const auto more = static_cast<std::int64_t>(piece.size());
    if (file_.size >= 0 && size_ + more > file_.size) {
      drop();
      fail(ErrorKind::kCorrupt, "{}: longer than the {} bytes that the hub says",
           without_query(head.url), file_.size);
    }
    out_.write(piece.data(), static_cast<std::streamsize>(piece.size()));
    if (!out_) fail(ErrorKind::kDisk, "{}: cannot be written; is the disk full?", path_.string());
    size_ += more;
    count(more);
  }

  // An answer with another beginning than was asked for starts the file anew.
  void start(const HttpReply& head) {
    open_ = true;
    constexpr int kPart = 206;
    if (size_ > 0 && head.status != kPart) drop();
    if (head.status == kPart && first_byte(head.header("content-range")) != size_) {
      drop();
      fail(ErrorKind::kCorrupt, "{}: another part than was asked for", without_query(head.url));
    }
    out_.open(path_, std::ios::binary | std::ios::app);
  }

  const HubFile& file_;
  std::filesystem::path path_;
  const DownloadOptions& options_;
  std::int64_t size_;
  std::ofstream out_;
  bool open_ = false;
};

}  // namespace

HttpReply fetch_patiently(const DownloadOptions& options,
                          const std::function<HttpReply(bool& progress)>& attempt) {
  for (int attempts = 1;; ++attempts) {
    bool progress = false;
    HttpReply reply = attempt(progress);
    const bool failed = !reply.failure.empty();
    if (!failed && (reply.status == 200 || reply.status == 206)) return reply;
    if (progress) attempts = 1;
    const bool may_pass = failed || asks_for_patience(reply.status);
    if (!may_pass || attempts >= kMostAttempts) fail_for_good(reply);
    const auto asked =
        parse_retry_after(reply.header("retry-after"), std::chrono::system_clock::now());
    const std::int64_t seconds = asked.value_or(std::int64_t{1} << (attempts - 1));
    if (seconds > kLongestWait) fail_for_good(reply);
    if (options.wait) options.wait(seconds);
  }
}

std::string download_text(const std::string& url, std::size_t max_bytes,
                          const DownloadOptions& options) {
  std::string text;
  fetch_patiently(options, [&](bool& /*progress*/) {
    text.clear();
    return http_fetch({.url = url, .token = options.token},
                      [&](const HttpReply&, std::string_view piece) {
                        if (text.size() + piece.size() > max_bytes) {
                          fail(ErrorKind::kCorrupt, "{}: an answer of more than {} bytes",
                               without_query(url), max_bytes);
                        }
                        text += piece;
                      });
  });
  return text;
}

bool download_blob(const std::string& url, const HubFile& file, const std::filesystem::path& blob,
                   const std::filesystem::path& lock, const DownloadOptions& options) {
  const FileLock locked(lock);
  if (std::filesystem::exists(blob)) {
    if (options.arrived) options.arrived(size_of(blob));
    return false;
  }
  std::filesystem::create_directories(blob.parent_path());
  std::filesystem::path partial_path = blob;
  partial_path += ".incomplete";
  PartialFile partial(file, partial_path, options);
  for (const bool again : {false, true}) {
    if (!partial.whole()) {
      const HttpRequest request{.url = url, .token = options.token};
      fetch_patiently(options, [&](bool& progress) { return partial.fetch(request, progress); });
    }
    if (file.size == 0) std::ofstream(partial_path, std::ios::app);
    if (has_digest(partial_path, file.digest)) break;
    partial.drop();
    if (again) {
      fail(ErrorKind::kCorrupt, "{}: what comes has another checksum than {}", without_query(url),
           file.digest);
    }
  }
  sync_path(partial_path);
  std::filesystem::rename(partial_path, blob);
  return true;
}

}  // namespace nibble::hub
