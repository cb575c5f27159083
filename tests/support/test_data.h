// Where tests find their data: the repository itself, and larger data outside it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace nibble::test {

std::filesystem::path source_dir();
inline std::filesystem::path tiny_novel() { return source_dir() / "models/tiny-novel"; }

// The folder of larger test data, or empty when NIBBLE_TEST_DATA is not set.
inline std::filesystem::path data_dir() {
  const char* value = std::getenv("NIBBLE_TEST_DATA");
  return value == nullptr ? "" : value;
}

// A fresh empty folder for one test, removed at the end.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "nibble_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make " + name);
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace nibble::test

// Skips the test, saying what is missing, unless the larger test data has `relative`.
#define NIBBLE_NEEDS_DATA(relative)                                      \
  if (::nibble::test::data_dir().empty() ||                              \
      !std::filesystem::exists(::nibble::test::data_dir() / (relative))) \
  GTEST_SKIP() << "needs " << (relative) << " in the folder that NIBBLE_TEST_DATA names"

// The statement must throw nibble::Error of this kind with a message that contains `text`.
#define EXPECT_ERROR(statement, expected_kind, text)                                    \
  try {                                                                                 \
    statement;                                                                          \
    ADD_FAILURE() << "no error; expected " << ::nibble::to_string(expected_kind);       \
  } catch (const ::nibble::Error& error) {                                              \
    EXPECT_STREQ(::nibble::to_string(error.kind()), ::nibble::to_string(expected_kind)) \
        << error.what();                                                                \
    EXPECT_THAT(error.what(), ::testing::HasSubstr(text));                              \
  }
