#include "tensor/npy.h"

#include <cstring>

#include "base/file.h"
#include "support/test_data.h"

namespace nibble {
namespace {

// The bytes that numpy 2 writes for np.array([[1, 2, 3], [4, 5, 6]], dtype='<i4').
std::string numpy_file() {
  std::string header = "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }";
  header.append(118 - header.size() - 1, ' ');
  header += '\n';
  std::string file("\x93NUMPY\x01\x00v\x00", 10);
  file += header;
  for (char i = 1; i <= 6; ++i) file += std::string({i, 0, 0, 0});
  return file;
}

Tensor parse(const std::string& file) {
  return parse_npy(std::as_bytes(std::span(file.data(), file.size())), "a.npy");
}

TEST(NpyTest, ReadsWhatNumpyWrites) {
  const Tensor tensor = parse(numpy_file());
  EXPECT_EQ(tensor.dtype(), DType::kI32);
  EXPECT_EQ(tensor.shape(), (Shape{2, 3}));
  EXPECT_EQ(tensor.data<std::int32_t>()[5], 6);
}

TEST(NpyTest, RoundTripsEveryType) {
  const test::TempDir dir;
  for (const DType dtype : {DType::kU8, DType::kI32, DType::kI64, DType::kF16, DType::kF32}) {
    for (const Shape& shape : {Shape{}, Shape{0}, Shape{5}, Shape{2, 0, 3}, Shape{2, 3, 4}}) {
      Tensor tensor = Tensor::allocate(dtype, shape);
      auto* bytes = const_cast<std::byte*>(tensor.bytes().data());
      for (std::size_t i = 0; i < tensor.byte_size(); ++i) {
        bytes[i] = static_cast<std::byte>(i * 37);
      }
      write_npy(dir / "t.npy", tensor);
      const Tensor read = read_npy(dir / "t.npy");
      ASSERT_EQ(read.shape(), shape);
      ASSERT_EQ(read.dtype(), dtype);
      ASSERT_EQ(std::memcmp(read.bytes().data(), tensor.bytes().data(), tensor.byte_size()), 0);
      ASSERT_EQ((std::filesystem::file_size(dir / "t.npy") - tensor.byte_size()) % 64, 0u);
    }
  }
}

TEST(NpyTest, RefusesDamage) {
  const std::string good = numpy_file();
  for (std::size_t cut = 0; cut < good.size(); ++cut) {
    EXPECT_ERROR(parse(good.substr(0, cut)), ErrorKind::kCorrupt, "a.npy");
  }
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string file = good;
    return file.replace(file.find(from), from.size(), to);
  };
  EXPECT_ERROR(parse(replaced("<i4", ">i4")), ErrorKind::kUnsupported, "element type");
  EXPECT_ERROR(parse(replaced("False", "True ")), ErrorKind::kUnsupported, "Fortran order");
  EXPECT_ERROR(parse(replaced("(2, 3)", "(9, 3)")), ErrorKind::kCorrupt, "cut short");
  EXPECT_ERROR(parse(replaced("(2, 3), }   ", "(99999999999")), ErrorKind::kCorrupt, "shape");
  EXPECT_ERROR(parse(replaced("(2, 3)", "(-2,3)")), ErrorKind::kCorrupt, "bad npy shape");
}

}  // namespace
}  // namespace nibble
