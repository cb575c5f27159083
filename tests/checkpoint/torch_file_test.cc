// Files of torch.save against what torch says is in them, and pickles that would do something.
#include "checkpoint/container/torch_file.h"

#include <algorithm>

#include "base/file.h"
#include "support/golden_checkpoint.h"

namespace nibble {
namespace {

using test::golden_checkpoint;

std::vector<PickledTensor> unpickle(const std::string& pickle) {
  return read_torch_pickle(std::as_bytes(std::span(pickle)), "pickle");
}

// The dictionary {"w": tensor} of a storage of `elements` F32, under sizes and strides of one
// dimension.
std::string pickle_of(int elements, int offset, int size, int stride) {
  const auto number = [](int n) { return std::string("K") + static_cast<char>(n); };
  const auto text = [](const std::string& s) {
    return std::string("X") + static_cast<char>(s.size()) + std::string(3, '\0') + s;
  };
  return "\x80\x02}" + text("w") + "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") +
         "ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(elements) + "tQ" +
         number(offset) + number(size) + "\x85" + number(stride) + "\x85\x89}tRs.";
}

TEST(TorchFile, HoldsWhatTorchSays) {
  for (const char* name : {"torch_bin", "torch_sharded"}) {
    const auto checkpoint = open_checkpoint(golden_checkpoint(name));
    const SafetensorsFile expected(golden_checkpoint(name) / "expected.safetensors");
    EXPECT_EQ(checkpoint->names(), expected.names());
    for (const std::string& tensor : expected.names()) {
      const Tensor ours = checkpoint->tensor(tensor), theirs = expected.tensor(tensor);
      EXPECT_EQ(ours.dtype(), theirs.dtype()) << tensor;
      EXPECT_EQ(ours.shape(), theirs.shape()) << tensor;
      EXPECT_TRUE(std::ranges::equal(ours.bytes(), theirs.bytes())) << tensor;
    }
  }
}

TEST(TorchFile, MapsWhatLiesInOrder) {
  const auto checkpoint = open_checkpoint(golden_checkpoint("torch_bin"));
  EXPECT_EQ(checkpoint->tensor("whole").bytes().data() + 20 * sizeof(float),
            checkpoint->tensor("rows").bytes().data());
}

TEST(TorchFile, OldFormIsRefusedWithAdvice) {
  EXPECT_ERROR(open_checkpoint(golden_checkpoint("torch_old")), ErrorKind::kUnsupported,
               "PyTorch before 1.6");
}

TEST(TorchFile, CutFilesAreCorrupt) {
  const std::string whole = read_text_file(golden_checkpoint("torch_bin") / "pytorch_model.bin");
  for (std::size_t size = 0; size < whole.size(); size += 97) {
    const std::string cut = whole.substr(0, size);
    EXPECT_ERROR(parse_torch_file(std::as_bytes(std::span(cut)), "cut"), ErrorKind::kCorrupt, "");
  }
}

TEST(TorchPickle, ReadsAView) {
  const std::vector<PickledTensor> tensors = unpickle(pickle_of(10, 1, 3, 4));
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].name, "w");
  EXPECT_EQ(tensors[0].shape, (Shape{3}));
  EXPECT_EQ(tensors[0].strides, (std::vector<std::int64_t>{4}));
  EXPECT_EQ(tensors[0].offset, 1);
}

TEST(TorchPickle, ViewsStayInsideTheirStorage) {
  EXPECT_ERROR(unpickle(pickle_of(10, 2, 3, 4)), ErrorKind::kCorrupt, "over the end");
  EXPECT_ERROR(unpickle(pickle_of(2, 0, 3, 0)), ErrorKind::kCorrupt, "more elements");
}

TEST(TorchPickle, RunsNothing) {
  const std::string system =
      "\x80\x02"
      "cposix\nsystem\nX\x04" +
      std::string(3, '\0') + "true\x85R.";
  EXPECT_ERROR(unpickle(system), ErrorKind::kUnsupported, "posix.system");
  const std::string stacked =
      "\x80\x04\x8c\x08"
      "builtins\x8c\x04"
      "eval\x93.";
  EXPECT_ERROR(unpickle(stacked), ErrorKind::kUnsupported, "builtins.eval");
  // INST, OBJ, NEWOBJ and EXT1 build objects in other ways.
  for (const char* code : {"ios\nsystem\n", "o", "\x81", "\x82\x01"}) {
    EXPECT_ERROR(unpickle(std::string("\x80\x02(") + code + "."), ErrorKind::kUnsupported,
                 "instruction");
  }
}

// Sizes are a list that the program makes longer after the tensor was made of it.
TEST(TorchPickle, ListsThatGrowLaterChangeNothing) {
  std::string pickle = pickle_of(10, 1, 3, 4);
  const std::size_t sizes = pickle.find("K\x03\x85");
  pickle.replace(sizes, 3, std::string("]q\x01K\x03") + "a");
  pickle.insert(pickle.size() - 2, std::string("h\x01K\x07") + "a0");
  EXPECT_EQ(unpickle(pickle)[0].shape, (Shape{3}));
}

TEST(TorchPickle, ADictionaryMayHoldItself) {
  EXPECT_TRUE(unpickle(std::string("\x80\x02}q\x00X\x01\x00\x00\x00"
                                   "ah\x00s.",
                                   15))
                  .empty());
}

}  // namespace
}  // namespace nibble
