// An output directory that appears only when it is complete.
//
//   TARGET.partial/          while writing: the lock, the fingerprint, what a run needs to resume
//   TARGET.partial/output/   what becomes TARGET, by one rename
#pragma once

#include <filesystem>
#include <string>

namespace nibble {

// Not thread-safe. One run at a time may stage a target; others get kUsage.
class StagedDirectory {
 public:
  // `fingerprint` says everything that the output depends on: a run that resumes must have the
  // same. With `resume`, what an interrupted run left is taken up; without anything left a fresh
  // directory is begun. kUsage when the target exists, when something was left but `resume` is
  // false, when the fingerprints differ or another run holds the lock; kDisk when the directory
  // cannot be made.
  StagedDirectory(const std::filesystem::path& target, const std::string& fingerprint,
                  bool resume = false);
  // Removes everything staged, unless committed or kept.
  ~StagedDirectory();
  StagedDirectory(const StagedDirectory&) = delete;
  StagedDirectory& operator=(const StagedDirectory&) = delete;

  // Where the output is written.
  std::filesystem::path path() const { return state_ / "output"; }
  // Where a run keeps what it needs to resume; gone after commit().
  const std::filesystem::path& state_path() const { return state_; }
  // True when files of an interrupted run are there.
  bool resumed() const { return resumed_; }

  // Leaves the staged files for a later run with `resume`, whatever happens to this one.
  void keep() { keep_ = true; }
  // Syncs every file, renames the output to the target and syncs its parent. kDisk on failure.
  void commit();

 private:
  void take_lock();
  void check_or_write_fingerprint(const std::string& fingerprint);

  std::filesystem::path target_;
  std::filesystem::path state_;
  int lock_ = -1;
  bool resumed_ = false;
  bool keep_ = false;
  bool committed_ = false;
};

}  // namespace nibble
