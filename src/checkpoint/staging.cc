#include "checkpoint/staging.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "base/file.h"

namespace nibble {
namespace {

constexpr const char* kLock = "lock";
constexpr const char* kFingerprint = "fingerprint";

// "out/" and "out" are the same target.
std::filesystem::path without_trailing_slash(const std::filesystem::path& path) {
  const std::filesystem::path normal = std::filesystem::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

void sync_tree(const std::filesystem::path& directory) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    sync_path(entry.path());
  }
  sync_path(directory);
}

// Also for a link that leads nowhere.
bool is_taken(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::symlink_status(path, error);
  return std::filesystem::exists(status);
}

}  // namespace

StagedDirectory::StagedDirectory(const std::filesystem::path& target,
                                 const std::string& fingerprint, bool resume)
    : target_(without_trailing_slash(target)), state_(target_.string() + ".partial") {
  if (is_taken(target_)) {
    fail(ErrorKind::kUsage, "{}: exists already; remove it or choose another name",
         target_.string());
  }
  if (!std::filesystem::is_directory(target_.parent_path())) {
    fail(ErrorKind::kUsage, "{}: is no directory; create it first", target_.parent_path().string());
  }
  const bool left = is_taken(state_);
  std::error_code error;
  std::filesystem::create_directory(state_, error);
  if (error) fail(ErrorKind::kDisk, "{}: cannot create: {}", state_.string(), error.message());
  take_lock();
  try {
    if (left && !resume) {
      fail(ErrorKind::kUsage,
           "{}: left by an interrupted run; continue that one with --resume or remove it",
           state_.string());
    }
    check_or_write_fingerprint(fingerprint);
    std::filesystem::create_directory(path(), error);
    if (error) fail(ErrorKind::kDisk, "{}: cannot create: {}", path().string(), error.message());
  } catch (...) {
    // Only what this run made may be removed.
    if (!left) std::filesystem::remove_all(state_, error);
    ::close(lock_);
    throw;
  }
}

StagedDirectory::~StagedDirectory() {
  std::error_code ignored;
  if (!keep_ && !committed_) std::filesystem::remove_all(state_, ignored);
  ::close(lock_);
}

void StagedDirectory::take_lock() {
  const std::filesystem::path path = state_ / kLock;
  lock_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) {
    const int code = errno;
    std::error_code ignored;
    std::filesystem::remove(state_, ignored);  // does nothing unless it is empty
    fail(ErrorKind::kDisk, "{}: cannot create: {}", path.string(), std::strerror(code));
  }
  // The kernel drops the lock when its holder ends, however it ends.
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    fail(ErrorKind::kUsage, "{}: another run is writing this target", target_.string());
  }
}

void StagedDirectory::check_or_write_fingerprint(const std::string& fingerprint) {
  const std::filesystem::path path = state_ / kFingerprint;
  if (!is_taken(path)) {  // fresh, or interrupted before anything was written
    write_file_atomic(path, fingerprint);
    return;
  }
  if (read_text_file(path) != fingerprint) {
    fail(ErrorKind::kUsage,
         "{}: the interrupted run had another model, recipe or option; resume it with those, or "
         "remove the directory",
         state_.string());
  }
  resumed_ = true;
}

void StagedDirectory::commit() {
  sync_tree(path());
  if (std::rename(path().c_str(), target_.c_str()) != 0) {
    fail(ErrorKind::kDisk, "{}: cannot rename to {}: {}", path().string(), target_.string(),
         std::strerror(errno));
  }
  committed_ = true;
  sync_path(target_.parent_path());
  std::error_code ignored;
  std::filesystem::remove_all(state_, ignored);
}

}  // namespace nibble
