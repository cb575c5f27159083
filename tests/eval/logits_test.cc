#include "eval/logits.h"

#include "base/error.h"
#include "runtime/session.h"
#include "support/exact_backend.h"
#include "support/test_data.h"
#include "support/tolerance.h"
#include "tensor/npy.h"

namespace nibble {
namespace {

template <class T>
void write_ids(const std::filesystem::path& path, DType dtype, Shape shape, std::vector<T> values) {
  Tensor tensor = Tensor::allocate(dtype, std::move(shape));
  std::copy(values.begin(), values.end(), tensor.mutable_data<T>());
  write_npy(path, tensor);
}

class IdFiles : public testing::Test {
 protected:
  test::TempDir dir_;
  std::filesystem::path file_ = dir_ / "ids.npy";
};

TEST_F(IdFiles, Int32AndInt64MatricesAndRows) {
  write_ids<std::int32_t>(file_, DType::kI32, {2, 3}, {0, 1, 2, 3, 4, 9});
  const IdMatrix matrix = read_ids(file_, 10);
  EXPECT_EQ(matrix.batch, 2);
  EXPECT_EQ(matrix.seq, 3);
  EXPECT_EQ(matrix.ids, (std::vector<std::int32_t>{0, 1, 2, 3, 4, 9}));
  write_ids<std::int64_t>(file_, DType::kI64, {2}, {7, 8});
  EXPECT_EQ(read_ids(file_, 10).batch, 1);
  EXPECT_EQ(read_ids(file_, 10).ids, (std::vector<std::int32_t>{7, 8}));
}

TEST_F(IdFiles, WhatIsNoMatrixOfIdsIsAUsageError) {
  write_ids<std::int64_t>(file_, DType::kI64, {1, 2}, {0, std::int64_t{1} << 32});
  EXPECT_ERROR(read_ids(file_, 10), ErrorKind::kUsage, "4294967296");
  write_ids<std::int32_t>(file_, DType::kI32, {1, 2}, {0, 10});
  EXPECT_ERROR(read_ids(file_, 10), ErrorKind::kUsage, "outside the vocabulary");
  write_ids<std::int32_t>(file_, DType::kI32, {1, 2}, {0, -1});
  EXPECT_ERROR(read_ids(file_, 10), ErrorKind::kUsage, "outside the vocabulary");
  write_ids<std::int32_t>(file_, DType::kI32, {1, 1, 1}, {0});
  EXPECT_ERROR(read_ids(file_, 10), ErrorKind::kUsage, "[1, 1, 1]");
  write_ids<std::int32_t>(file_, DType::kI32, {0, 4}, {});
  EXPECT_ERROR(read_ids(file_, 10), ErrorKind::kUsage, "[0, 4]");
  write_ids<float>(file_, DType::kF32, {1, 1}, {0});
  EXPECT_ERROR(read_ids(file_, 10), ErrorKind::kUsage, "F32");
}

void compare_with_oracle(const std::string& arch) {
  const std::string oracle = "oracles/" + arch;
  NIBBLE_NEEDS_DATA(oracle);
  const auto folder = test::data_dir() / oracle;
  const auto backend = test::exact_backend();
  const Session session = open_session(folder, *backend);
  test::TempDir dir;
  const IdMatrix ids = read_ids(folder / "input_ids.npy", session.model->spec().vocab);
  const Shape shape = write_logits(*session.model, ids, dir / "logits.npy");
  const Tensor expected = read_npy(folder / "expected.npy");
  const Tensor actual = read_npy(dir / "logits.npy");
  EXPECT_EQ(shape, expected.shape());
  ASSERT_EQ(actual.shape(), expected.shape());
  const auto count = static_cast<std::size_t>(expected.elements());
  EXPECT_LT(test::max_abs_error({actual.data<float>(), count}, {expected.data<float>(), count}),
            5e-5);
  EXPECT_FALSE(std::filesystem::exists(dir / "logits.npy.tmp"));
}

TEST(Logits, OfADecoder) { compare_with_oracle("llama_mha"); }
TEST(Logits, OfAnEncoderAreItsLastHiddenState) { compare_with_oracle("bert"); }

TEST(Logits, AReadOnlyTargetLeavesNothing) {
  const auto backend = test::exact_backend();
  const Session session = open_session(test::tiny_novel(), *backend);
  test::TempDir dir;
  const IdMatrix ids = {1, 2, {1, 2}};
  EXPECT_ERROR(write_logits(*session.model, ids, dir / "none" / "logits.npy"), ErrorKind::kDisk,
               "logits.npy");
  std::filesystem::create_directory(dir / "taken");
  EXPECT_ERROR(write_logits(*session.model, ids, dir / "taken"), ErrorKind::kDisk, "rename");
  EXPECT_FALSE(std::filesystem::exists(dir / "taken.tmp"));
}

}  // namespace
}  // namespace nibble
