#include "base/file.h"

#include <fstream>

#include "base/error.h"
#include "base/mmap.h"
#include "support/test_data.h"

namespace nibble {
namespace {

TEST(FileTest, AtomicWriteReplacesTheWholeFile) {
  const test::TempDir dir;
  write_file_atomic(dir / "a.txt", "first and longer");
  write_file_atomic(dir / "a.txt", "second");
  EXPECT_EQ(read_text_file(dir / "a.txt"), "second");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

TEST(FileTest, FailuresNameThePathAndLeaveNothing) {
  const test::TempDir dir;
  EXPECT_ERROR(write_file_atomic(dir / "missing/a.txt", "x"), ErrorKind::kDisk, "missing/a.txt");
  EXPECT_ERROR(read_text_file(dir / "none"), ErrorKind::kCorrupt, "none: cannot open");
  EXPECT_ERROR(MappedFile::open(dir.path()), ErrorKind::kCorrupt, "not a regular file");
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(FileTest, OutputFileWritesAtOffsetsAndKeepsTheRest) {
  const test::TempDir dir;
  {
    OutputFile file(dir / "f", 8);
    file.write_at(4, std::as_bytes(std::span("wxyz", 4)));
    file.write_at(0, std::as_bytes(std::span("abcd", 4)));
  }
  OutputFile(dir / "f", 8).write_at(2, std::as_bytes(std::span("--", 2)));
  EXPECT_EQ(read_text_file(dir / "f"), "ab--wxyz");
}

TEST(FileTest, SpaceThatCannotBeReservedIsADiskError) {
  // An impossible reservation fails as a full disk does, before anything is written.
  const test::TempDir dir;
  EXPECT_ERROR(OutputFile(dir / "huge", std::size_t{1} << 60), ErrorKind::kDisk, "reserve space");
}

TEST(FileTest, MapsEmptyFiles) {
  const test::TempDir dir;
  std::ofstream(dir / "empty").close();
  EXPECT_TRUE(MappedFile::open(dir / "empty")->bytes().empty());
}

TEST(Utf8Test, AcceptsExactlyWellFormedText) {
  for (const char* good : {"", "plain", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                           "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf", "\xee\x80\x80"}) {
    EXPECT_TRUE(is_valid_utf8(good)) << good;
  }
  for (const char* bad :
       {"\x80", "\xc3", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xed\xa0\x80", "\xed\xbf\xbf",
        "a\xffz", "\xe2\x82", "\xe2\x28\xa1"}) {
    EXPECT_FALSE(is_valid_utf8(bad)) << testing::PrintToString(std::string(bad));
  }
}

}  // namespace
}  // namespace nibble
