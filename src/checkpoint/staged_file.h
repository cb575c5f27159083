// An output file that appears only when it is complete.
#pragma once

#include <filesystem>

namespace nibble {

// path() is TARGET.partial until commit() renames it; it is removed when nothing is committed. Not
// thread-safe. kUsage when the target or the partial file exists or the folder does not; kDisk when
// renaming fails.
class StagedFile {
 public:
  explicit StagedFile(const std::filesystem::path& target);
  ~StagedFile();
  StagedFile(const StagedFile&) = delete;
  StagedFile& operator=(const StagedFile&) = delete;

  const std::filesystem::path& path() const { return partial_; }
  void commit();

 private:
  std::filesystem::path target_, partial_;
  bool committed_ = false;
};

}  // namespace nibble
