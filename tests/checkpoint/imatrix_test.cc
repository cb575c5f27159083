// Importance matrices in both their forms.
#include "checkpoint/imatrix.h"

#include <cstring>

#include "checkpoint/container/gguf.h"
#include "support/gguf_bytes.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::GgufBytes;
using test::span_of;
using test::TempDir;

template <class T>
std::string raw(std::initializer_list<T> values) {
  std::string bytes;
  for (const T value : values) bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  return bytes;
}

// One entry of 4 columns, 3 calls, and what is behind the entries.
std::string old_file() {
  return raw<std::int32_t>({1, 5}) + "blk.q" + raw<std::int32_t>({3, 4}) +
         raw<float>({3, 6, 0, 12}) + raw<std::int32_t>({7, 4}) + "text";
}

TEST(Imatrix, ReadsTheOldForm) {
  const Imatrix imatrix = parse_imatrix(span_of(old_file()), "test");
  EXPECT_EQ(imatrix.source.chunks, 7u);
  EXPECT_EQ(imatrix.source.datasets, std::vector<std::string>{"text"});
  const auto means = imatrix.importance("blk.q", 4, 0);
  EXPECT_EQ(std::vector<float>(means.begin(), means.end()), (std::vector<float>{1, 2, 0, 4}));
  EXPECT_TRUE(imatrix.importance("blk.k", 4, 0).empty());
  EXPECT_ERROR(imatrix.importance("blk.q", 3, 0), ErrorKind::kCorrupt, "blk.q");
  // Two experts under one count.
  EXPECT_EQ(imatrix.importance("blk.q", 2, 1)[1], 4);
}

// Two experts of three columns, of which the second saw nothing.
GgufBytes new_file() {
  GgufBytes bytes;
  bytes.string("general.type", "imatrix");
  bytes.u32("imatrix.chunk_count", 9);
  bytes.u32("imatrix.chunk_size", 512);
  bytes.tensor("e.in_sum2", 0, {2, 3}, span_of(raw<float>({2, 4, 8, 0, 0, 0})));
  bytes.tensor("e.counts", 0, {2, 1}, span_of(raw<float>({2, 0})));
  return bytes;
}

TEST(Imatrix, ReadsTheGgufForm) {
  const Imatrix imatrix = parse_imatrix(span_of(new_file().bytes()), "test");
  EXPECT_EQ(imatrix.source.chunks, 9u);
  EXPECT_EQ(imatrix.source.chunk_size, 512u);
  const auto means = imatrix.importance("e", 3, 0);
  EXPECT_EQ(std::vector<float>(means.begin(), means.end()), (std::vector<float>{1, 2, 4}));
  EXPECT_TRUE(imatrix.importance("e", 3, 1).empty());
  EXPECT_ERROR(imatrix.importance("e", 3, 2), ErrorKind::kCorrupt, "'e'");
}

TEST(Imatrix, IsTheSameBehindBothForms) {
  TempDir dir;
  const Imatrix imatrix = parse_imatrix(span_of(new_file().bytes()), "test");
  for (const char* name : {"x.gguf", "x.dat"}) {
    write_imatrix(imatrix, dir / name);
    const Imatrix read = read_imatrix(dir / name);
    EXPECT_EQ(is_gguf(dir / name), name == std::string("x.gguf"));
    EXPECT_EQ(read.source.chunks, 9u) << name;
    const auto means = read.importance("e", 3, 0);
    EXPECT_EQ(std::vector<float>(means.begin(), means.end()), (std::vector<float>{1, 2, 4}))
        << name;
    EXPECT_TRUE(read.importance("e", 3, 1).empty()) << name;
  }
}

TEST(Imatrix, RefusesDamagedFiles) {
  const std::string whole = old_file();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    // Older writers stopped behind the entries, or behind the number of chunks.
    if (size == whole.size() - 12 || size == whole.size() - 8) continue;
    EXPECT_ERROR(parse_imatrix(span_of(whole.substr(0, size)), "test"), ErrorKind::kCorrupt, "");
  }
  const auto with = [&](std::size_t at, std::int32_t value) {
    std::string bytes = whole;
    std::memcpy(bytes.data() + at, &value, sizeof value);
    return bytes;
  };
  for (const auto& [at, value] : {std::pair{0, 0},
                                  {0, -1},
                                  {0, 1 << 30},
                                  {4, -1},
                                  {4, 1 << 30},
                                  {13, -1},
                                  {17, 0},
                                  {17, 1 << 30},
                                  {21, 0x7fc00000}}) {
    const std::string bytes = with(static_cast<std::size_t>(at), value);
    EXPECT_ERROR(parse_imatrix(span_of(bytes), "test"), ErrorKind::kCorrupt, "importance matrix");
  }
  GgufBytes lonely;
  lonely.tensor("e.in_sum2", 0, {1, 3}, span_of(raw<float>({2, 4, 8})));
  EXPECT_ERROR(parse_imatrix(span_of(lonely.bytes()), "test"), ErrorKind::kCorrupt, "e.counts");
  GgufBytes halves;
  halves.tensor("e.in_sum2", 1, {1, 2}, span_of(std::string(4, '\0')));
  halves.tensor("e.counts", 0, {1, 1}, span_of(raw<float>({1})));
  EXPECT_ERROR(parse_imatrix(span_of(halves.bytes()), "test"), ErrorKind::kCorrupt, "F16");
  EXPECT_ERROR(parse_imatrix(span_of(GgufBytes().bytes()), "test"), ErrorKind::kCorrupt, "in_sum2");
}

}  // namespace
}  // namespace nibble
