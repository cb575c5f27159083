#include "backends/bench_codecs.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <limits>
#include <random>

#include "formats/registry.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

// The least time of a call, of at least two.
double best_seconds(double budget, const std::function<void()>& call) {
  call();
  double best = std::numeric_limits<double>::infinity();
  const auto start = Clock::now();
  auto begin = start;
  do {
    call();
    const auto end = Clock::now();
    best = std::min(best, std::chrono::duration<double>(end - begin).count());
    begin = end;
  } while (std::chrono::duration<double>(begin - start).count() < budget);
  return best;
}

bool same_bytes(const QuantTensor& a, const QuantTensor& b) {
  return std::ranges::equal(a.planes, b.planes, [](const Tensor& x, const Tensor& y) {
    return std::ranges::equal(x.bytes(), y.bytes());
  });
}

CodecRow bench_codec(const std::string& name, const Codec& codec, const CodecBench& options,
                     const std::vector<float>& w) {
  const FormatPtr format = parse_model_format(name).weights;
  const std::int64_t rows = options.rows;
  const std::int64_t cols = options.cols;
  CodecRow result{name, format->name(), nibble::bits_per_weight(*format, rows, cols), 0, 0, false};
  QuantTensor stored;
  const double encode =
      best_seconds(options.seconds, [&] { stored = format->encode(w.data(), rows, cols, codec); });
  std::vector<float> decoded(w.size());
  const double decode =
      best_seconds(options.seconds, [&] { decode_all(stored, decoded.data(), codec); });
  const double bytes = 4.0 * static_cast<double>(w.size());
  result.encode_bytes_per_second = bytes / encode;
  result.decode_bytes_per_second = bytes / decode;

  std::vector<float> defined(w.size());
  const QuantTensor definition = format->encode(w.data(), rows, cols);
  decode_all(definition, defined.data());
  result.equal = same_bytes(stored, definition) &&
                 std::memcmp(decoded.data(), defined.data(), 4 * w.size()) == 0;
  return result;
}

}  // namespace

std::vector<CodecRow> bench_codecs(Backend& backend, const CodecBench& options) {
  std::vector<std::string> names = options.formats;
  if (names.empty()) {
    for (const FormatAlias& alias : format_aliases()) names.push_back(alias.name);
  }
  std::vector<float> w(static_cast<std::size_t>(options.rows * options.cols));
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::ranges::generate(w, [&] { return normal(random); });
  std::vector<CodecRow> rows;
  for (const std::string& name : names) {
    rows.push_back(bench_codec(name, backend.codec(), options, w));
  }
  return rows;
}

}  // namespace nibble
