// The directories of checkpoints with expected logits that the tests of the model loop over.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "checkpoint/checkpoint.h"
#include "model/arch.h"
#include "model/model.h"
#include "support/exact_backend.h"
#include "support/test_data.h"
#include "tensor/npy.h"

namespace nibble::test {

inline std::vector<std::filesystem::path> directories_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> found;
  if (!std::filesystem::is_directory(folder)) return found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (std::filesystem::exists(entry.path() / "expected.npy")) found.push_back(entry.path());
  }
  std::ranges::sort(found);
  return found;
}

// Those of the repository, and those of the larger test data when there are any.
inline std::vector<std::filesystem::path> oracle_directories() {
  std::vector<std::filesystem::path> all = directories_in(source_dir() / "tests/golden/archs");
  if (!data_dir().empty()) {
    for (const auto& path : directories_in(data_dir() / "oracles")) all.push_back(path);
  }
  return all;
}

inline std::string oracle_name(const std::filesystem::path& path) {
  return path.parent_path().filename().string() + "_" + path.filename().string();
}

// A checkpoint with ids [batch, length] and what transformers computes for them in float32.
struct Oracle {
  explicit Oracle(const std::filesystem::path& path)
      : checkpoint(open_checkpoint(path)),
        backend(test::exact_backend()),
        spec(build_spec(checkpoint->config())),
        ids(read_npy(path / "input_ids.npy")),
        expected(read_npy(path / "expected.npy")) {}

  std::int64_t length() const { return ids.dim(1); }
  std::int64_t width() const { return expected.dim(2); }
  std::vector<std::int32_t> row(std::int64_t b) const {
    const std::int32_t* begin = ids.data<std::int32_t>() + b * length();
    return {begin, begin + length()};
  }
  std::vector<std::int32_t> all_ids() const {
    const std::int32_t* begin = ids.data<std::int32_t>();
    return {begin, begin + ids.elements()};
  }
  std::span<const float> expected_rows(std::int64_t b, std::int64_t begin,
                                       std::int64_t rows) const {
    return {expected.data<float>() + (b * length() + begin) * width(),
            static_cast<std::size_t>(rows * width())};
  }

  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Backend> backend;
  ModelSpec spec;
  Tensor ids;
  Tensor expected;
};

inline std::span<const float> floats(const Tensor& tensor) {
  return {tensor.data<float>(), static_cast<std::size_t>(tensor.elements())};
}

}  // namespace nibble::test
