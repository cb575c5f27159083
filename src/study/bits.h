// How many bits of accuracy number formats keep: log2(deviation / RMSE), exact for elements under
// one range, measured for stored formats with scales by block.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/registry.h"
#include "quantize/calibrators/calibrators.h"
#include "study/distribution.h"

namespace nibble {

// Where values come from.
struct BitsSource {
  std::string kind;   // "distribution", "weight", "activation"
  std::string name;   // "normal", "model.layers.0.mlp.down_proj", "layers.0.attn_in"
  std::string group;  // what reports put together: the name, the last part of a module, a site
};

struct BitsRow {
  BitsSource source;
  std::string format;  // an element of grid.h or a format of the registry
  // "best" and "minmax" (one range for all values), "lloyd-max" (free levels), the name of a
  // calibrator, that with kByChannel behind it (a range for each channel), "stored" (scales as the
  // format stores them) or "block32" (block_error.h)
  std::string range;
  double bits = 0;
  double clip = 0;             // in deviations; 0 where there is not one for all
  double bits_per_weight = 0;  // all that is stored; the width of the element for one range
};

struct NamedDistribution {
  std::string name;
  DistributionPtr distribution;
};
// Uniform, normal, Laplace, Student-t of each of the degrees of freedom, and outlier mixtures.
inline constexpr double kStudentDegrees[] = {10, 8, 7, 6, 5, 4, 3, 2};
std::vector<NamedDistribution> study_distributions(
    std::span<const double> degrees = kStudentDegrees);

// Elements of 8, 6 and 4 bits under the best range and under that of the largest magnitude; free
// levels too when `lloyd_max`.
std::vector<BitsRow> study_elements(const BitsSource& source, const Distribution& distribution,
                                    bool lloyd_max);

// Integers of 8, 6 and 4 bits with a zero point, under the best range and under that of the minimum
// and the maximum: for values that do not lie evenly about 0.
std::vector<BitsRow> study_zero_points(const BitsSource& source, const Distribution& distribution);

// Symmetric integers of 8, 6 and 4 bits under the ranges that calibrators choose from the
// histogram of the same values.
std::vector<BitsRow> study_calibrators(const BitsSource& source, const Distribution& distribution,
                                       const Histogram& histogram,
                                       std::span<const Calibrator> calibrators,
                                       const CalibratorOptions& options);

// The same with a histogram and a range for each channel of values [rows, cols], one batch each:
// for each column where `of_columns`, or else for each row.
inline constexpr std::string_view kByChannel = "/channel";
std::vector<BitsRow> study_channel_calibrators(const BitsSource& source,
                                               std::span<const float> values, std::int64_t cols,
                                               bool of_columns,
                                               std::span<const Calibrator> calibrators,
                                               const CalibratorOptions& options);

struct NamedFormat {
  std::string name;
  FormatPtr format;
};
// The named formats (short names or definitions), or every registered one that rounds when `names`
// is empty.
std::vector<NamedFormat> study_formats_named(const std::vector<std::string>& names);

// values is [rows, cols]. Formats that cannot store such a matrix are left out.
std::vector<BitsRow> study_formats(const BitsSource& source, std::span<const float> values,
                                   std::int64_t cols, std::span<const NamedFormat> formats);

// 2^20 samples of the normal, Laplace and Student-t (nu = 5) distributions in rows of 4096, the
// same ones every time.
struct SampledValues {
  std::string name;
  std::vector<float> values;
  std::int64_t cols = 0;
};
std::vector<SampledValues> sample_distributions();

}  // namespace nibble
