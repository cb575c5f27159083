// EXL2 of ExLlamaV2: a Hugging Face directory with quant_method "exl2". Columns are put into an
// order of their own and cut into groups, each with a number of bits; every row of a group has a
// scale of 4 bits under one F16 for the group.
// Source: ExLlamaV2, conversion/adaptivegptq.py (pack) and cuda/quant/qdq_util.cuh.
//
//   M.q_weight     I32 [words, out]   of each output a bit stream, a group from a word on
//   M.q_scale      I32 [G, out / 8]   codes of scales, 4 bits each, along the output
//   M.q_scale_max  F16 [G]
//   M.q_groups     I16 [2 G]          of each group its bits and its first row of q_weight
//   M.q_invperm    I32 [in]           the place of each input in that order
//
// Weights are decoded when they are loaded, to what the kernels of ExLlamaV2 multiply by.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "checkpoint/exl2_groups.h"
#include "checkpoint/hf_directory.h"
#include "formats/affine.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

constexpr std::int64_t kRowPadding = 32;

class Exl2Modules final : public QuantizedModules {
 public:
  explicit Exl2Modules(std::shared_ptr<const HfDirectory> directory)
      : directory_(std::move(directory)) {}

  bool has(const std::string& module) const override { return files().has(module + ".q_weight"); }

  QuantTensor read(const std::string& module) const override {
    const std::string what = "module '" + module + "'";
    const Tensor words = typed(module + ".q_weight", DType::kI32, 2);
    const std::vector<std::int32_t> places = read_places(module, what);
    const auto cols = static_cast<std::int64_t>(places.size());
    const Tensor pairs = typed(module + ".q_groups", DType::kI16, 1);
    std::vector<std::int16_t> q_groups(static_cast<std::size_t>(pairs.elements()));
    std::memcpy(q_groups.data(), pairs.bytes().data(), pairs.byte_size());
    const std::vector<Exl2Group> groups = exl2_groups(q_groups, words.dim(0), cols, what);
    const Scales scales = read_scales(module, std::ssize(groups), words.dim(1));

    const Tensor streams = transposed(words);
    const std::int64_t rows =
        without_padding(directory_->config, module, words.dim(1), kRowPadding);
    Tensor weight = Tensor::allocate(DType::kF16, {rows, cols});
    auto* out = weight.mutable_data<f16>();
    std::vector<f16> row(places.size());
    for (std::int64_t r = 0; r < rows; ++r) {
      decode_row(groups, scales, streams, r, row);
      for (const std::int32_t place : places) *out++ = row[static_cast<std::size_t>(place)];
    }
    return dense(std::move(weight));
  }

  std::vector<std::string> notes() const override {
    return {directory_->path.string() +
            ": EXL2 weights are decoded when they are loaded, and take the memory of 16-bit "
            "weights"};
  }

 private:
  struct Scales {
    Tensor codes;               // q_scale
    std::vector<float> maxima;  // of each group
  };

  const TensorFiles& files() const { return directory_->files; }

  Tensor typed(const std::string& name, DType dtype, std::size_t rank) const {
    Tensor tensor = files().tensor(name);
    if (tensor.dtype() != dtype || tensor.shape().size() != rank || tensor.elements() == 0) {
      fail(ErrorKind::kCorrupt, "tensor '{}': {} {} where {} of {} dimensions is needed", name,
           to_string(tensor.dtype()), to_string(tensor.shape()), to_string(dtype), rank);
    }
    return tensor;
  }

  // Of each column, all of them once.
  std::vector<std::int32_t> read_places(const std::string& module, const std::string& what) const {
    std::vector<std::int32_t> places = read_indices(files(), module + ".q_invperm");
    std::vector<bool> seen(places.size());
    for (const std::int32_t place : places) {
      const auto at = static_cast<std::size_t>(place);
      if (place < 0 || at >= places.size() || seen[at]) {
        fail(ErrorKind::kCorrupt, "{}: q_invperm holds {}; 0 to {} are needed, each once", what,
             place, places.size() - 1);
      }
      seen[at] = true;
    }
    return places;
  }

  Scales read_scales(const std::string& module, std::int64_t groups, std::int64_t rows) const {
    Scales scales{typed(module + ".q_scale", DType::kI32, 2), {}};
    const Tensor maxima = typed(module + ".q_scale_max", DType::kF16, 1);
    constexpr std::int64_t kScalesPerWord = 8;
    if (rows % kScalesPerWord != 0 ||
        scales.codes.shape() != Shape{groups, rows / kScalesPerWord} ||
        maxima.elements() != groups) {
      fail(ErrorKind::kCorrupt, "module '{}': scales {} and {} of {} rows in {} groups", module,
           to_string(scales.codes.shape()), to_string(maxima.shape()), rows, groups);
    }
    scales.maxima.resize(static_cast<std::size_t>(groups));
    to_float(maxima, scales.maxima.data());
    constexpr float kMost = 65504.0f / 128;  // so that every code gives a number of F16
    if (!std::ranges::all_of(scales.maxima, [](float s) { return std::abs(s) <= kMost; })) {
      fail(ErrorKind::kCorrupt, "module '{}': a scale in q_scale_max beyond {}", module, kMost);
    }
    return scales;
  }

  // In the order of places.
  static void decode_row(const std::vector<Exl2Group>& groups, const Scales& scales,
                         const Tensor& streams, std::int64_t row, std::vector<f16>& out) {
    const std::byte* const words = streams.bytes().data() + row * streams.dim(1) * 4;
    const std::int64_t scale_bytes = scales.codes.dim(1) * 4;
    std::vector<std::uint8_t> codes;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const Exl2Group& group = groups[g];
      const auto pair = std::to_integer<int>(scales.codes.bytes()[static_cast<std::size_t>(
          static_cast<std::int64_t>(g) * scale_bytes + row / 2)]);
      const float step = exl2_step(row % 2 == 0 ? pair & 15 : pair >> 4, scales.maxima[g]);
      codes.resize(static_cast<std::size_t>(group.cols));
      unpack_codes(words + group.word * 4, group.bits, 0, group.cols, codes.data());
      for (std::size_t i = 0; i < codes.size(); ++i) {
        const int code = codes[i] - (1 << (group.bits - 1));
        out[static_cast<std::size_t>(group.begin) + i] = to_f16(static_cast<float>(code) * step);
      }
    }
  }

  std::shared_ptr<const HfDirectory> directory_;
};

}  // namespace

bool probe_exl2(const std::filesystem::path& path) { return quant_method_of(path) == "exl2"; }

std::unique_ptr<Checkpoint> open_exl2(const std::filesystem::path& path) {
  auto directory = open_hf_directory(path);
  auto modules = std::make_unique<Exl2Modules>(directory);
  return make_hf_checkpoint("exl2", std::move(directory), std::move(modules));
}

}  // namespace nibble
