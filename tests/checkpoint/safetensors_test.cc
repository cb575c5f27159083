#include "checkpoint/container/safetensors.h"

#include <cstring>
#include <fstream>

#include "support/test_data.h"

namespace nibble {
namespace {

using test::TempDir;
using ::testing::ElementsAre;

// The bytes of a file with this header and `data_size` bytes of data 0, 1, 2, ...
std::string file_of(const std::string& header, std::size_t data_size = 0) {
  std::string file(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(file.data(), &length, sizeof length);
  file += header;
  for (std::size_t i = 0; i < data_size; ++i) file.push_back(static_cast<char>(i));
  return file;
}

SafetensorsHeader parse(const std::string& file) {
  return parse_safetensors(std::as_bytes(std::span(file.data(), file.size())), "x.safetensors");
}

void expect_corrupt(const std::string& file, const std::string& text) {
  SCOPED_TRACE(file.substr(0, 200));
  EXPECT_ERROR(parse(file), ErrorKind::kCorrupt, text);
}

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST(Safetensors, MapsTensorsOfEveryRank) {
  TempDir dir;
  write(dir / "x.safetensors",
        file_of(R"({"__metadata__":{"format":"pt"},)"
                R"("b":{"dtype":"I32","shape":[1,2],"data_offsets":[4,12]},)"
                R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                R"("empty":{"dtype":"U8","shape":[0,7],"data_offsets":[12,12]}}   )",
                12));
  const SafetensorsFile file(dir / "x.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  ASSERT_EQ(file.entries().size(), 3u);
  const Tensor b = file.tensor("b");
  EXPECT_THAT(b.shape(), ElementsAre(1, 2));
  EXPECT_EQ(static_cast<int>(b.bytes()[0]), 4);
  EXPECT_EQ(file.tensor("a").elements(), 1);
  EXPECT_EQ(file.tensor("empty").byte_size(), 0u);
  EXPECT_FALSE(file.tensor("empty").empty());
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_ERROR(file.tensor("c"), ErrorKind::kCorrupt, "no tensor 'c'");
}

TEST(Safetensors, UnknownDtypeIsAnErrorOfThatTensorOnly) {
  TempDir dir;
  write(dir / "x.safetensors", file_of(R"({"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]},)"
                                       R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                                       3));
  const SafetensorsFile file(dir / "x.safetensors");
  EXPECT_EQ(file.tensor("b").elements(), 1);
  EXPECT_ERROR(file.tensor("a"), ErrorKind::kUnsupported, "'a' has the unknown dtype 'F4'");
}

TEST(Safetensors, RefusesTruncation) {
  expect_corrupt("", "too short");
  expect_corrupt("1234567", "too short");
  const std::string whole = file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4);
  EXPECT_EQ(parse(whole).entries.size(), 1u);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_ERROR(parse(whole.substr(0, size)), ErrorKind::kCorrupt, "x.safetensors");
  }
  expect_corrupt(whole + "x", "5 bytes of data, of which the tensors use 4");
}

TEST(Safetensors, RefusesLyingHeaderLengths) {
  std::string file = file_of("{}");
  const std::uint64_t beyond = 3, huge = kMaxSafetensorsHeader + 1;
  std::memcpy(file.data(), &beyond, 8);
  expect_corrupt(file, "truncated");
  std::memcpy(file.data(), &huge, 8);
  expect_corrupt(file, "more than the limit");
  std::memset(file.data(), 0xff, 8);
  expect_corrupt(file, "more than the limit");
  std::memset(file.data(), 0, 8);
  expect_corrupt(file, "does not begin with '{'");
}

std::string tensor_json(const std::string& dtype, const std::string& shape,
                        const std::string& offsets) {
  return R"({"t":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

TEST(Safetensors, RefusesOffsetsThatDoNotFit) {
  expect_corrupt(file_of(tensor_json("U8", "[4]", "[0,4]"), 3), "'t' lies at bytes 0 to 4 of 3");
  expect_corrupt(file_of(tensor_json("U8", "[4]", "[4,0]"), 4), "'t' lies at bytes 4 to 0");
  expect_corrupt(file_of(tensor_json("U8", "[3]", "[0,4]"), 4), "needs 3 bytes");
  expect_corrupt(file_of(tensor_json("F32", "[4]", "[0,4]"), 4), "needs 16 bytes");
  expect_corrupt(file_of(tensor_json("U8", "[3]", "[1,4]"), 4), "a hole");
  expect_corrupt(file_of(tensor_json("U8", "[3]", "[0,18446744073709551615]"), 4), "lies at");
  expect_corrupt(file_of(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                         R"("b":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}})",
                         4),
                 "'b' begins at byte 1, the tensor before it ends at 3: they overlap");
  expect_corrupt(file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                         R"("b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
                         4),
                 "a hole");
}

TEST(Safetensors, RefusesShapesThatOverflow) {
  expect_corrupt(file_of(tensor_json("U8", "[4294967296,4294967296]", "[0,0]")), "larger than any");
  expect_corrupt(file_of(tensor_json("U8", "[4294967296,4294967296,0]", "[0,0]")),
                 "larger than any");
  expect_corrupt(file_of(tensor_json("F64", "[2305843009213693952]", "[0,0]")), "larger than any");
  expect_corrupt(file_of(tensor_json("F4", "[9223372036854775807,9]", "[0,0]")), "larger than any");
  expect_corrupt(file_of(tensor_json("U8", "[18446744073709551615]", "[0,0]")), "dimension");
  expect_corrupt(file_of(tensor_json("U8", "[18446744073709551616]", "[0,0]")), "unexpected");
  expect_corrupt(file_of(tensor_json("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]"), 1),
                 "more than 16 dimensions");
}

TEST(Safetensors, RefusesWrongStructure) {
  const char* const bad[] = {
      R"([])",
      R"({"t":1})",
      R"({"t":"x"})",
      R"({"t":null})",
      R"({"t":true})",
      R"({"t":[]})",
      R"({"t":{}})",
      R"({"t":{"dtype":"U8","shape":[0]}})",
      R"({"t":{"dtype":"U8","shape":[0],"data_offsets":[0]}})",
      R"({"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}})",
      R"({"t":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}})",
      R"({"t":{"dtype":"U8","shape":[0.5],"data_offsets":[0,0]}})",
      R"({"t":{"dtype":"U8","shape":[[0]],"data_offsets":[0,0]}})",
      R"({"t":{"dtype":"U8","shape":0,"data_offsets":[0,0]}})",
      R"({"t":{"dtype":8,"shape":[0],"data_offsets":[0,0]}})",
      R"({"t":{"dtype":{},"shape":[0],"data_offsets":[0,0]}})",
      R"({"t":{"dtype":"U8","shape":["0"],"data_offsets":[0,0]}})",
      R"({"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"more":1}})",
      R"({"__metadata__":{"a":1}})",
      R"({"__metadata__":{"a":{}}})",
      R"({"__metadata__":[]})",
      R"({"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})",
      R"({"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}},)",
      R"({"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}{})",
      "{\"\xff\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
  };
  for (const char* header : bad) expect_corrupt(file_of(header), "x.safetensors");
}

TEST(Safetensors, RefusesDuplicateKeys) {
  const std::string t = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  expect_corrupt(file_of(R"({"t":)" + t + R"(,"t":)" + t + "}"), "duplicate tensor 't'");
  expect_corrupt(file_of(R"({"t":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})"),
                 "'t' has the duplicate key 'dtype'");
  expect_corrupt(file_of(R"({"__metadata__":{},"__metadata__":{}})"), "duplicate");
  expect_corrupt(file_of(R"({"__metadata__":{"a":"","a":""}})"), "duplicate key 'a'");
}

TEST(Safetensors, RefusesDeepNesting) {
  expect_corrupt(file_of("{\"a\":" + std::string(1000000, '[')), "unexpected an array");
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  expect_corrupt(file_of(objects), "unknown key");
}

TEST(Safetensors, BoundsAHeaderOfAHundredMegabytes) {
  // As many of the shortest entries as the limit of the header holds.
  std::string header = "{";
  for (std::size_t i = 0; header.size() < kMaxSafetensorsHeader - 100; ++i) {
    header += "\"" + std::to_string(i) + R"(":{"dtype":"U8","shape":[],"data_offsets":[0,0]},)";
  }
  header.back() = '}';
  expect_corrupt(file_of(header), "more than 1000000 tensors");
}

}  // namespace
}  // namespace nibble
