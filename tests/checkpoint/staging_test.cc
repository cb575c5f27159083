#include "checkpoint/staging.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::TempDir;

void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
}

TEST(StagedDirectory, AppearsOnlyWhenCommitted) {
  TempDir dir;
  StagedDirectory staged(dir / "out", "f");
  EXPECT_FALSE(staged.resumed());
  write(staged.path() / "file", "text");
  write(staged.state_path() / "progress", "1");
  EXPECT_FALSE(std::filesystem::exists(dir / "out"));
  staged.commit();
  EXPECT_EQ(read_text_file(dir / "out/file"), "text");
  EXPECT_FALSE(std::filesystem::exists(dir / "out.partial"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir / "out"), {}), 1);
}

TEST(StagedDirectory, LeavesNothingUnlessKept) {
  TempDir dir;
  { StagedDirectory staged(dir / "out/", "f"); }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  {
    StagedDirectory staged(dir / "out", "f");
    write(staged.path() / "file", "text");
    staged.keep();
  }
  EXPECT_TRUE(std::filesystem::exists(dir / "out.partial/output/file"));
  StagedDirectory resumed(dir / "out", "f", true);
  EXPECT_TRUE(resumed.resumed());
  EXPECT_EQ(read_text_file(resumed.path() / "file"), "text");
  resumed.commit();
  EXPECT_EQ(read_text_file(dir / "out/file"), "text");
}

TEST(StagedDirectory, RefusesATargetThatExists) {
  TempDir dir;
  write(dir / "file", "text");
  std::filesystem::create_directory(dir / "folder");
  std::filesystem::create_symlink(dir / "nowhere", dir / "link");
  for (const char* name : {"file", "folder", "link"}) {
    for (const bool resume : {false, true}) {
      EXPECT_ERROR(StagedDirectory(dir / name, "f", resume), ErrorKind::kUsage, "exists already");
    }
  }
  EXPECT_EQ(read_text_file(dir / "file"), "text");
  EXPECT_ERROR(StagedDirectory(dir / "no/out", "f"), ErrorKind::kUsage, "create it first");
}

TEST(StagedDirectory, RefusesToMixRuns) {
  TempDir dir;
  {
    StagedDirectory staged(dir / "out", "recipe a");
    staged.keep();
    EXPECT_ERROR(StagedDirectory(dir / "out", "recipe a", true), ErrorKind::kUsage, "another run");
  }
  EXPECT_ERROR(StagedDirectory(dir / "out", "recipe a"), ErrorKind::kUsage, "--resume");
  EXPECT_ERROR(StagedDirectory(dir / "out", "recipe b", true), ErrorKind::kUsage,
               "another model, recipe or option");
  EXPECT_TRUE(std::filesystem::exists(dir / "out.partial/output"));
}

TEST(StagedDirectory, ResumeWithoutAnythingLeftBeginsAfresh) {
  TempDir dir;
  EXPECT_FALSE(StagedDirectory(dir / "out", "f", true).resumed());
  // Killed between making the directory and writing the fingerprint.
  std::filesystem::create_directory(dir / "out.partial");
  EXPECT_FALSE(StagedDirectory(dir / "out", "f", true).resumed());
}

TEST(StagedDirectory, AKilledRunReleasesItsLock) {
  TempDir dir;
  const pid_t child = fork();
  if (child == 0) {
    StagedDirectory staged(dir / "out", "f");
    write(staged.path() / "file", "text");
    kill(getpid(), SIGKILL);
  }
  ASSERT_GT(child, 0);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(StagedDirectory(dir / "out", "f", true).resumed());
}

TEST(StagedDirectory, ATargetThatCannotBeWrittenIsADiskError) {
  // /proc takes no new directories, even from the superuser.
  EXPECT_ERROR(StagedDirectory("/proc/nibble-out", "f"), ErrorKind::kDisk, "cannot create");
}

}  // namespace
}  // namespace nibble
