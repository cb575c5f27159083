#include "checkpoint/packed_cache.h"

#include <sys/stat.h>

#include <cstring>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "support/test_data.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Tensor blob(std::size_t bytes, int seed) {
  Tensor tensor = Tensor::allocate(DType::kU8, {static_cast<std::int64_t>(bytes)});
  auto* values = tensor.mutable_data<std::uint8_t>();
  for (std::size_t i = 0; i < bytes; ++i) {
    values[i] = static_cast<std::uint8_t>(i * 7 + static_cast<std::size_t>(seed));
  }
  return tensor;
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return !a.empty() && a.byte_size() == b.byte_size() &&
         std::memcmp(a.bytes().data(), b.bytes().data(), a.byte_size()) == 0;
}

class PackedCacheTest : public ::testing::Test {
 protected:
  PackedCache open(const std::string& identity = "one\n") {
    return {file_, identity, [this](LogLevel level, const std::string& message) {
              messages_.push_back((level == LogLevel::kWarning ? "warning: " : "") + message);
            }};
  }
  void save_two() {
    PackedCache cache = open();
    cache.put("a/codes", blob(100, 1));
    cache.put("b/codes", blob(4096, 2));
    cache.save();
  }
  void expect_two() {
    PackedCache cache = open();
    EXPECT_TRUE(same_bytes(cache.find("a/codes", 100), blob(100, 1)));
    EXPECT_TRUE(same_bytes(cache.find("b/codes", 4096), blob(4096, 2)));
  }
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(dir_.path()), fs::directory_iterator()));
  }

  test::TempDir dir_;
  fs::path file_ = dir_ / "x.repacked";
  std::vector<std::string> messages_;
};

TEST_F(PackedCacheTest, WhatIsPutIsFoundAtTheNextStart) {
  {
    PackedCache cache = open();
    EXPECT_TRUE(cache.find("a/codes", 100).empty());
    cache.save();
    EXPECT_FALSE(fs::exists(file_)) << "nothing was put";
  }
  save_two();
  EXPECT_EQ(files(), 1u) << "nothing is left beside the file";
  expect_two();
  EXPECT_THAT(messages_, IsEmpty());
}

TEST_F(PackedCacheTest, BlobsAreAlignedAndOutliveTheCache) {
  save_two();
  Tensor found = open().find("b/codes", 4096);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(found.bytes().data()) % 64, 0u);
  EXPECT_TRUE(same_bytes(found, blob(4096, 2)));
}

TEST_F(PackedCacheTest, OtherNamesAndSizesAreNotFound) {
  save_two();
  PackedCache cache = open();
  EXPECT_TRUE(cache.find("c/codes", 100).empty());
  EXPECT_TRUE(cache.find("a/codes", 4096).empty());
  EXPECT_TRUE(cache.find("a/codes", 0).empty());
  EXPECT_TRUE(cache.find("identity", 64).empty());
}

TEST_F(PackedCacheTest, AddingKeepsWhatWasUsedAndDropsTheRest) {
  save_two();
  {
    PackedCache cache = open();
    cache.find("a/codes", 100);
    cache.put("c/codes", blob(64, 3));
    cache.save();
  }
  PackedCache cache = open();
  EXPECT_TRUE(same_bytes(cache.find("a/codes", 100), blob(100, 1)));
  EXPECT_TRUE(same_bytes(cache.find("c/codes", 64), blob(64, 3)));
  EXPECT_TRUE(cache.find("b/codes", 4096).empty());
}

TEST_F(PackedCacheTest, AnotherCheckpointIsNotMixedUp) {
  save_two();
  PackedCache cache = open("two\n");
  EXPECT_TRUE(cache.find("a/codes", 100).empty());
  EXPECT_THAT(messages_, ElementsAre(HasSubstr("another state")));
}

TEST_F(PackedCacheTest, DamagedFilesAreRefusedAndMadeAnew) {
  save_two();
  const std::string good = read_text_file(file_);
  for (std::size_t size = 0; size < good.size(); size += size < 600 ? 7 : 997) {
    std::ofstream(file_, std::ios::binary) << good.substr(0, size);
    messages_.clear();
    EXPECT_TRUE(open().find("a/codes", 100).empty()) << size;
    EXPECT_THAT(messages_, ElementsAre(HasSubstr("warning: the cache of repacked weights")));
  }
  save_two();
  messages_.clear();
  expect_two();
  EXPECT_THAT(messages_, IsEmpty());
}

TEST_F(PackedCacheTest, HeadersThatLie) {
  save_two();
  const std::string good = read_text_file(file_);
  const std::size_t header = 8 + static_cast<std::size_t>(static_cast<unsigned char>(good[0])) +
                             256 * static_cast<std::size_t>(static_cast<unsigned char>(good[1]));
  for (std::size_t i = 0; i < header; ++i) {
    for (const char c : {'9', '0', '}', '\xff'}) {
      std::string bad = good;
      bad[i] = c;
      std::ofstream(file_, std::ios::binary) << bad;
      PackedCache cache = open();
      const Tensor found = cache.find("b/codes", 4096);
      // What is found lies inside the file, or this reads beyond the map.
      EXPECT_TRUE(found.empty() || found.byte_size() == 4096) << i;
      std::size_t sum = 0;
      for (const std::byte value : found.bytes()) sum += std::to_integer<std::size_t>(value);
      EXPECT_GE(4096u * 255u, sum);
    }
  }
}

TEST_F(PackedCacheTest, ADiskThatCannotBeWrittenIsAWarning) {
  PackedCache cache{dir_ / "missing/x.repacked", "one\n",
                    [this](LogLevel, const std::string& message) { messages_.push_back(message); }};
  cache.put("a/codes", blob(100, 1));
  cache.save();
  EXPECT_THAT(messages_, ElementsAre(HasSubstr("not kept for the next start")));
}

TEST_F(PackedCacheTest, IdentityFollowsTheFilesOfTheWeights) {
  std::ofstream(dir_ / "model.safetensors") << "abc";
  std::ofstream(dir_ / "config.json") << "{}";
  const std::string before = checkpoint_identity(dir_.path());
  std::ofstream(dir_ / "nibble.repacked") << "x";
  std::ofstream(dir_ / "README.md") << "x";
  EXPECT_EQ(checkpoint_identity(dir_.path()), before);
  fs::last_write_time(dir_ / "model.safetensors",
                      fs::last_write_time(dir_ / "model.safetensors") + std::chrono::seconds(1));
  const std::string touched = checkpoint_identity(dir_.path());
  EXPECT_NE(touched, before);
  std::ofstream(dir_ / "config.json") << "{ }";
  EXPECT_NE(checkpoint_identity(dir_.path()), touched);
  EXPECT_THAT(checkpoint_identity(dir_ / "config.json"), HasSubstr("config.json 3 "));
  EXPECT_ERROR(checkpoint_identity(dir_ / "none"), ErrorKind::kDisk, "none");
}

TEST_F(PackedCacheTest, PathsBesideAndElsewhere) {
  EXPECT_EQ(packed_cache_path(dir_.path()), dir_ / "nibble.repacked");
  std::ofstream(dir_ / "m.bin") << "x";
  EXPECT_EQ(packed_cache_path(dir_ / "m.bin"), dir_ / "m.bin.nibble.repacked");
  const fs::path there = packed_cache_path("/a/b%2f", "/caches");
  EXPECT_EQ(there, "/caches/%2fa%2fb%252f.nibble.repacked");
  EXPECT_NE(there, packed_cache_path("/a/b/", "/caches"));
}

}  // namespace
}  // namespace nibble
