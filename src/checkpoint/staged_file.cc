#include "checkpoint/staged_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "base/file.h"

namespace nibble {

StagedFile::StagedFile(const std::filesystem::path& target)
    : target_(std::filesystem::absolute(target).lexically_normal()),
      partial_(target_.string() + ".partial") {
  std::error_code error;
  for (const auto& path : {target_, partial_}) {
    if (std::filesystem::exists(std::filesystem::symlink_status(path, error))) {
      fail(ErrorKind::kUsage, "{}: exists already; remove it or choose another name",
           path.string());
    }
  }
  if (!std::filesystem::is_directory(target_.parent_path())) {
    fail(ErrorKind::kUsage, "{}: is no directory; create it first", target_.parent_path().string());
  }
}

StagedFile::~StagedFile() {
  std::error_code ignored;
  if (!committed_) std::filesystem::remove(partial_, ignored);
}

void StagedFile::commit() {
  sync_path(partial_);
  if (std::rename(partial_.c_str(), target_.c_str()) != 0) {
    fail(ErrorKind::kDisk, "{}: cannot rename to {}: {}", partial_.string(), target_.string(),
         std::strerror(errno));
  }
  committed_ = true;
  sync_path(target_.parent_path());
}

}  // namespace nibble
