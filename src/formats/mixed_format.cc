#include "formats/mixed_format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "formats/affine.h"
#include "formats/families.h"
#include "formats/mixed_encode.h"

namespace nibble {
namespace {

constexpr std::string_view kMixedName = "mixed";
constexpr std::int64_t kMostColumns = std::int64_t{1} << 20;

bool is_open(const ColumnRun& run) { return run.groups == 0 && run.percent == 0; }

// The columns of a run of which `left` of `cols` are left.
std::int64_t columns_of(const ColumnRun& run, std::int64_t cols, std::int64_t left) {
  if (is_open(run)) return left;
  if (run.percent == 0) return run.groups * run.group;
  const std::int64_t wanted = (cols * run.percent + 99) / 100;
  return std::min((wanted + run.group - 1) / run.group * run.group, left);
}

// Places of columns, unaligned.
class Places {
 public:
  explicit Places(const QuantTensor& tensor) : bytes_(tensor.planes[3].bytes().data()) {}

  std::int32_t operator[](std::int64_t col) const {
    std::int32_t place;
    std::memcpy(&place, bytes_ + 4 * col, sizeof place);
    return place;
  }

 private:
  const std::byte* bytes_;
};

// One row as it is decoded: its codes, and the scales of all groups.
class Row {
 public:
  Row(const QuantTensor& tensor, const std::vector<MixedRun>& runs, std::int64_t row)
      : runs_(runs),
        codes_(tensor.planes[0].bytes().data() + row * tensor.planes[0].dim(1) * 4),
        scales_(static_cast<std::size_t>(tensor.planes[2].elements())) {
    to_float(tensor.planes[2], scales_.data());
    const std::byte* pairs = tensor.planes[1].bytes().data() + row * tensor.planes[1].dim(1);
    for (std::size_t g = 0; g < scales_.size(); ++g) {
      const std::byte code = g % 2 == 0 ? pairs[g / 2] & std::byte{15} : pairs[g / 2] >> 4;
      scales_[g] = mixed_scale(std::to_integer<int>(code), scales_[g]);
    }
  }

  // In the order of places.
  void all(const SpanKernels& spans, float* out) const {
    std::vector<std::uint8_t> codes;
    for (const MixedRun& run : runs_) {
      const std::int64_t count = run.end - run.begin;
      codes.resize(static_cast<std::size_t>(count));
      unpack_codes(codes_ + run.word * 4, run.bits, 0, count, codes.data(), spans);
      const int zero = 1 << (run.bits - 1);
      for (std::int64_t g = 0; g < run.groups; ++g) {
        const std::int64_t begin = g * run.group, size = std::min(run.group, count - begin);
        spans.affine_values(&scale(run.first_group + g), &zero, codes.data() + begin, 1, size,
                            out + run.begin + begin);
      }
    }
  }

  float at(std::int64_t place) const {
    const auto after = [&](const MixedRun& run) { return place < run.end; };
    const MixedRun& run = *std::ranges::find_if(runs_, after);
    std::uint8_t code = 0;
    unpack_codes(codes_ + run.word * 4, run.bits, place - run.begin, 1, &code);
    return scale(run.first_group + (place - run.begin) / run.group) *
           static_cast<float>(int{code} - (1 << (run.bits - 1)));
  }

 private:
  const float& scale(std::int64_t group) const { return scales_[static_cast<std::size_t>(group)]; }

  const std::vector<MixedRun>& runs_;
  const std::byte* codes_;
  std::vector<float> scales_;  // [groups]
};

class MixedFormat final : public Format {
 public:
  explicit MixedFormat(const WeightDescriptor& descriptor) : descriptor_(descriptor) {}

  std::string name() const override {
    std::string text(kMixedName);
    for (const ColumnRun& run : descriptor_.element.runs) {
      text += fmt::format("_{}g{}", run.bits, run.group);
      if (run.groups > 0) text += fmt::format("x{}", run.groups);
      if (run.percent > 0) text += fmt::format("p{}", run.percent);
    }
    return text;
  }
  const WeightDescriptor& descriptor() const override { return descriptor_; }

  std::string why_not(std::int64_t rows, std::int64_t cols) const override {
    if (rows < 1 || cols < 1) return "the matrix is empty";
    if (cols > kMostColumns) return fmt::format("{} columns; 2^20 at most", cols);
    std::int64_t left = cols;
    for (const ColumnRun& run : descriptor_.element.runs) {
      left -= columns_of(run, cols, left);
      if (left < 0) return fmt::format("its groups hold more than {} columns", cols);
    }
    return "";
  }

  std::vector<PlaneSpec> planes(std::int64_t rows, std::int64_t cols) const override {
    const std::vector<MixedRun> runs = mixed_runs(*this, cols);
    const std::int64_t groups = mixed_groups(runs);
    return {{"codes", DType::kI32, {rows, mixed_words(runs)}},
            {"scales", DType::kU8, {rows, (groups + 1) / 2}},
            {"scale_max", DType::kF16, {groups}},
            {"places", DType::kI32, {cols}}};
  }

  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols,
                     const Codec& codec) const override {
    if (codec.rounding != Rounding::kNearest) {
      fail(ErrorKind::kUnsupported, "{}: mixed widths are rounded to nearest only", name());
    }
    require_fits(*this, rows, cols);
    require_finite(name(), w, rows, cols);
    return mixed_encode(make_mixed_format(descriptor_), w, rows, cols, codec);
  }

  // Columns stand apart in the stream, so a row is decoded as a whole unless few are wanted.
  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out, const SpanKernels& spans) const override {
    constexpr std::int64_t kFew = 8;
    const std::vector<MixedRun> runs = mixed_runs(*this, tensor.cols);
    const Row stored(tensor, runs, row);
    const Places places(tensor);
    if (count * kFew < tensor.cols) {
      for (std::int64_t i = 0; i < count; ++i) out[i] = stored.at(places[begin + i]);
      return;
    }
    std::vector<float> values(static_cast<std::size_t>(tensor.cols));
    stored.all(spans, values.data());
    for (std::int64_t i = 0; i < count; ++i) {
      out[i] = values[static_cast<std::size_t>(places[begin + i])];
    }
  }

 private:
  WeightDescriptor descriptor_;
};

// Takes a number off the front of the text.
std::optional<std::int64_t> take_number(std::string_view& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || value < 1) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

bool take(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

std::string why_no_run(const ColumnRun& run, bool last) {
  if (run.bits < 2 || run.bits > 8 || run.bits == 7) {
    return fmt::format("{} bits: 2, 3, 4, 5, 6 and 8 are supported", run.bits);
  }
  if (run.group < 1 || run.group > kMostColumns || run.group * run.bits % 32 != 0) {
    return fmt::format("groups of {} codes of {} bits: they must fill words of 32 bits", run.group,
                       run.bits);
  }
  if (run.groups < 0 || run.groups > kMostColumns || run.percent < 0 || run.percent > 100 ||
      (run.groups > 0 && run.percent > 0)) {
    return "a run has a number of groups or a percentage";
  }
  if (is_open(run) != last) return "the last run, and no other, takes what is left";
  return "";
}

}  // namespace

FormatPtr make_mixed_format(const WeightDescriptor& descriptor) {
  const std::vector<ColumnRun>& runs = descriptor.element.runs;
  if (runs.empty() || std::ssize(runs) > kMixedMaxRuns) {
    fail(ErrorKind::kUnsupported, "mixed widths in {} runs: 1 to {} are supported", runs.size(),
         kMixedMaxRuns);
  }
  for (const ColumnRun& run : runs) {
    if (const std::string reason = why_no_run(run, &run == &runs.back()); !reason.empty()) {
      fail(ErrorKind::kUnsupported, "mixed widths: {}", reason);
    }
  }
  return std::make_shared<MixedFormat>(descriptor);
}

std::optional<std::vector<ColumnRun>> parse_mixed_name(std::string_view text) {
  if (!take(text, kMixedName)) return std::nullopt;
  std::vector<ColumnRun> runs;
  while (!text.empty()) {
    if (!take(text, "_")) return std::nullopt;
    const auto bits = take_number(text);
    if (!bits || *bits > 8 || !take(text, "g")) return std::nullopt;
    const auto group = take_number(text);
    if (!group) return std::nullopt;
    ColumnRun& run = runs.emplace_back(ColumnRun{static_cast<int>(*bits), *group});
    const bool counted = take(text, "x");
    if (!counted && !take(text, "p")) continue;
    const auto size = take_number(text);
    if (!size || *size > kMostColumns) return std::nullopt;
    if (counted) run.groups = *size;
    if (!counted) run.percent = static_cast<int>(*size);
  }
  return runs;
}

std::vector<MixedRun> mixed_runs(const Format& format, std::int64_t cols) {
  std::vector<MixedRun> runs;
  std::int64_t begin = 0, group = 0, word = 0;
  for (const ColumnRun& run : format.descriptor().element.runs) {
    const std::int64_t taken = columns_of(run, cols, cols - begin);
    if (taken == 0) continue;
    const std::int64_t groups = (taken + run.group - 1) / run.group;
    runs.push_back({run.bits, run.group, group, groups, begin, begin + taken, word});
    begin += taken;
    group += groups;
    word += words_per_row(run.bits, taken);
  }
  return runs;
}

std::int64_t mixed_words(const std::vector<MixedRun>& runs) {
  const MixedRun& last = runs.back();
  return last.word + words_per_row(last.bits, last.end - last.begin);
}

std::int64_t mixed_groups(const std::vector<MixedRun>& runs) {
  return runs.back().first_group + runs.back().groups;
}

void check_mixed_planes(const QuantTensor& tensor, const std::string& what) {
  const Places places(tensor);
  std::vector<bool> seen(static_cast<std::size_t>(tensor.cols));
  for (std::int64_t col = 0; col < tensor.cols; ++col) {
    const std::int32_t place = places[col];
    if (place < 0 || place >= tensor.cols || seen[static_cast<std::size_t>(place)]) {
      fail(ErrorKind::kCorrupt, "{}: column {} has the place {}; places are 0 to {}, each once",
           what, col, place, tensor.cols - 1);
    }
    seen[static_cast<std::size_t>(place)] = true;
  }
  std::vector<float> scales(static_cast<std::size_t>(tensor.planes[2].elements()));
  to_float(tensor.planes[2], scales.data());
  if (!std::ranges::all_of(scales, [](float s) { return std::isfinite(s); })) {
    fail(ErrorKind::kCorrupt, "{}: a scale that is not finite", what);
  }
}

}  // namespace nibble
