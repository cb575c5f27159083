#include "study/bits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"
#include "study/grid.h"
#include "study/quantization_error.h"

namespace nibble {
namespace {

constexpr int kWidths[] = {8, 6, 4};

BitsRow element_row(const BitsSource& source, const Distribution& distribution, const Grid& grid,
                    const std::string& range, const Clip& clip) {
  return {source,
          grid.name,
          range,
          bits_of_accuracy(distribution, clip.mean_squared_error),
          clip.clip / deviation(distribution),
          static_cast<double>(grid.bits)};
}

// The values that share a range, counted.
struct Channel {
  Histogram histogram = Histogram::of_channel();
  DistributionPtr distribution;
  double count = 0;
};

std::vector<Channel> channels_of(std::span<const float> values, std::int64_t cols,
                                 bool of_columns) {
  const std::int64_t rows = static_cast<std::int64_t>(values.size()) / cols;
  const std::int64_t count = of_columns ? cols : rows;
  const std::int64_t length = of_columns ? rows : cols;
  std::vector<Channel> channels(static_cast<std::size_t>(count));
  std::vector<float> own(static_cast<std::size_t>(length));
  for (std::int64_t c = 0; c < count; ++c) {
    for (std::int64_t i = 0; i < length; ++i) {
      const std::int64_t at = of_columns ? i * cols + c : c * cols + i;
      own[static_cast<std::size_t>(i)] = values[static_cast<std::size_t>(at)];
    }
    Channel& channel = channels[static_cast<std::size_t>(c)];
    channel.histogram.add(own);
    channel.distribution = empirical_distribution(own);
    channel.count = static_cast<double>(length);
  }
  return channels;
}

// Squared error of all values under a calibrator's ranges.
double channel_error(std::span<const Channel> channels, const Calibrator& calibrator,
                     const CalibratorOptions& options, const Grid& grid) {
  double sum = 0;
  for (const Channel& channel : channels) {
    const double range = calibrator.calibrate(channel.histogram, options);
    const Distribution& values = *channel.distribution;
    sum +=
        channel.count * (range > 0 ? mean_squared_error(values, grid.levels, range)
                                   : values.above(-std::numeric_limits<double>::infinity()).second);
  }
  return sum;
}

// Mean squared error of one round trip.
double format_error(const Format& format, std::span<const float> values, std::int64_t cols) {
  const auto rows = static_cast<std::int64_t>(values.size()) / cols;
  const QuantTensor stored = format.encode(values.data(), rows, cols);
  std::vector<float> decoded(values.size());
  decode_all(stored, decoded.data());
  double error = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double d = static_cast<double>(values[i]) - static_cast<double>(decoded[i]);
    error += d * d;
  }
  return error / static_cast<double>(values.size());
}

template <class Draw>
SampledValues draw_samples(const std::string& name, Draw draw) {
  constexpr std::int64_t kCols = 4096, kRows = 256;
  SampledValues samples{name, std::vector<float>(kRows * kCols), kCols};
  std::mt19937_64 random(0);
  for (float& v : samples.values) v = static_cast<float>(draw(random));
  return samples;
}

}  // namespace

std::vector<NamedDistribution> study_distributions(std::span<const double> degrees) {
  std::vector<NamedDistribution> all = {{"uniform", uniform_distribution(1)},
                                        {"normal", normal_distribution()},
                                        {"laplace", laplace_distribution()}};
  for (const double nu : degrees) {
    all.push_back({fmt::format("student-t {}", nu), student_t_distribution(nu)});
  }
  all.push_back({"normal + 1% to 20",
                 mixture_distribution(normal_distribution(), uniform_distribution(20), 0.01)});
  all.push_back({"normal + 0.1% to 60",
                 mixture_distribution(normal_distribution(), uniform_distribution(60), 0.001)});
  return all;
}

std::vector<BitsRow> study_elements(const BitsSource& source, const Distribution& distribution,
                                    bool lloyd_max) {
  std::vector<BitsRow> rows;
  for (const int width : kWidths) {
    for (const Grid& grid : grids_of_width(width)) {
      rows.push_back(
          element_row(source, distribution, grid, "best", best_clip(distribution, grid.levels)));
      rows.push_back(element_row(source, distribution, grid, "minmax",
                                 min_max_clip(distribution, grid.levels)));
    }
    if (!lloyd_max) continue;
    const double error =
        mean_squared_error(distribution, lloyd_max_levels(distribution, 1 << width), 1);
    rows.push_back({source, fmt::format("lloyd-max {}", 1 << width), "lloyd-max",
                    bits_of_accuracy(distribution, error), 0, static_cast<double>(width)});
  }
  return rows;
}

std::vector<BitsRow> study_zero_points(const BitsSource& source, const Distribution& distribution) {
  std::vector<BitsRow> rows;
  for (const int width : kWidths) {
    const Grid named = integer_grid_around(width, 0);
    rows.push_back(element_row(source, distribution, named, "best",
                               best_zero_point_clip(distribution, width)));
    rows.push_back(element_row(source, distribution, named, "minmax",
                               min_max_zero_point_clip(distribution, width)));
  }
  return rows;
}

std::vector<BitsRow> study_calibrators(const BitsSource& source, const Distribution& distribution,
                                       const Histogram& histogram,
                                       std::span<const Calibrator> calibrators,
                                       const CalibratorOptions& options) {
  std::vector<BitsRow> rows;
  for (const Calibrator& calibrator : calibrators) {
    for (const int width : kWidths) {
      CalibratorOptions own = options;
      own.bits = width;
      const double range = calibrator.calibrate(histogram, own);
      if (range <= 0) continue;  // all zeros
      const Grid grid = integer_grid(width);
      rows.push_back(element_row(source, distribution, grid, calibrator.name,
                                 {range, mean_squared_error(distribution, grid.levels, range)}));
    }
  }
  return rows;
}

std::vector<BitsRow> study_channel_calibrators(const BitsSource& source,
                                               std::span<const float> values, std::int64_t cols,
                                               bool of_columns,
                                               std::span<const Calibrator> calibrators,
                                               const CalibratorOptions& options) {
  NIBBLE_CHECK(cols > 0 && static_cast<std::int64_t>(values.size()) % cols == 0);
  const std::vector<Channel> channels = channels_of(values, cols, of_columns);
  const DistributionPtr whole = empirical_distribution(values);
  std::vector<BitsRow> rows;
  for (const Calibrator& calibrator : calibrators) {
    for (const int width : kWidths) {
      CalibratorOptions own = options;
      own.bits = width;
      const Grid grid = integer_grid(width);
      const double error = channel_error(channels, calibrator, own, grid);
      rows.push_back({source, grid.name, calibrator.name + std::string(kByChannel),
                      bits_of_accuracy(*whole, error / static_cast<double>(values.size())), 0,
                      static_cast<double>(grid.bits)});
    }
  }
  return rows;
}

std::vector<NamedFormat> study_formats_named(const std::vector<std::string>& names) {
  std::vector<NamedFormat> formats;
  if (!names.empty()) {
    for (const std::string& name : names) {
      formats.push_back({name, parse_model_format(name).weights});
      if (formats.back().format == nullptr) {
        fail(ErrorKind::kUsage, "study: format '{}' leaves the weights as they are", name);
      }
    }
    return formats;
  }
  for (const FormatAlias& alias : format_aliases()) {
    const FormatPtr format = parse_model_format(alias.name).weights;
    // Names that differ in activations alone store the same weights.
    const auto is_same = [&](const NamedFormat& other) {
      return other.format->name() == format->name();
    };
    if (format == nullptr || format->is_float() || std::ranges::any_of(formats, is_same)) continue;
    formats.push_back({alias.name, format});
  }
  return formats;
}

std::vector<BitsRow> study_formats(const BitsSource& source, std::span<const float> values,
                                   std::int64_t cols, std::span<const NamedFormat> formats) {
  NIBBLE_CHECK(cols > 0 && static_cast<std::int64_t>(values.size()) % cols == 0);
  const auto count = static_cast<std::int64_t>(values.size()) / cols;
  const DistributionPtr distribution = empirical_distribution(values);
  std::vector<BitsRow> rows;
  for (const NamedFormat& named : formats) {
    if (!named.format->why_not(count, cols).empty()) continue;
    const double error = format_error(*named.format, values, cols);
    rows.push_back({source, named.name, "stored", bits_of_accuracy(*distribution, error), 0,
                    bits_per_weight(*named.format, count, cols)});
  }
  return rows;
}

std::vector<SampledValues> sample_distributions() {
  return {draw_samples("normal", std::normal_distribution<double>()),
          draw_samples("student-t 5", std::student_t_distribution<double>(5)),
          draw_samples("laplace", [sign = std::bernoulli_distribution(),
                                   tail = std::exponential_distribution<double>()](
                                      std::mt19937_64& random) mutable {
            const double magnitude = tail(random);
            return sign(random) ? magnitude : -magnitude;
          })};
}

}  // namespace nibble
