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

// A matrix, what it was encoded to, and that decoded; with the seconds of a run of each.
struct Runs {
  double encode = 0;
  double decode = 0;
  QuantTensor stored;
  std::vector<float> decoded;
};

Runs run_on_host(const FormatPtr& format, const Codec& codec, const CodecBench& options,
                 const std::vector<float>& w) {
  Runs runs;
  runs.decoded.resize(w.size());
  runs.encode = best_seconds(options.seconds, [&] {
    runs.stored = format->encode(w.data(), options.rows, options.cols, codec);
  });
  runs.decode =
      best_seconds(options.seconds, [&] { decode_all(runs.stored, runs.decoded.data(), codec); });
  return runs;
}

// The ops of a device, in its memory.
Runs run_on_device(const FormatPtr& format, Backend& backend, const CodecBench& options,
                   const std::vector<float>& w) {
  DeviceMemory& memory = backend.memory();
  const Shape shape = {options.rows, options.cols};
  Tensor values = memory.upload(from_float(w.data(), DType::kF32, shape));
  Runs runs;
  runs.stored = {format, options.rows, options.cols, {}};
  for (const PlaneSpec& plane : format->planes(options.rows, options.cols)) {
    runs.stored.planes.push_back(memory.allocate(plane.dtype, plane.shape));
  }
  EncodeArgs encode;
  encode.w = values.data<float>();
  encode.out = &runs.stored;
  runs.encode = best_seconds(options.seconds, [&] { backend.run(encode); });
  for (Tensor& plane : runs.stored.planes) plane = memory.download(plane);

  const QuantTensor weight = backend.prepare_table(runs.stored);
  DecodeArgs decode;
  decode.weight = &weight;
  decode.rows = options.rows;
  decode.out = values.mutable_data<float>();
  runs.decode = best_seconds(options.seconds, [&] {
    backend.run(decode);
    float first = 0;
    memory.copy_out(decode.out, sizeof(first), &first);  // waits
  });
  runs.decoded.resize(w.size());
  memory.copy_out(decode.out, values.byte_size(), runs.decoded.data());
  return runs;
}

CodecRow bench_codec(const std::string& name, Backend& backend, const CodecBench& options,
                     const std::vector<float>& w) {
  const FormatPtr format = parse_model_format(name).weights;
  const std::int64_t rows = options.rows;
  const std::int64_t cols = options.cols;
  CodecRow result{name, format->name(), nibble::bits_per_weight(*format, rows, cols), 0, 0, false};
  const Codec codec = backend.codec();
  const Runs runs = backend.memory().is_host() ? run_on_host(format, codec, options, w)
                                               : run_on_device(format, backend, options, w);
  const double bytes = 4.0 * static_cast<double>(w.size());
  result.encode_bytes_per_second = bytes / runs.encode;
  result.decode_bytes_per_second = bytes / runs.decode;

  std::vector<float> defined(w.size());
  const Codec definer{&scalar_spans(), &backend.pool()};
  const QuantTensor definition = format->encode(w.data(), rows, cols, definer);
  decode_all(definition, defined.data(), definer);
  result.equal = same_bytes(runs.stored, definition) &&
                 std::memcmp(runs.decoded.data(), defined.data(), 4 * w.size()) == 0;
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
    rows.push_back(bench_codec(name, backend, options, w));
  }
  return rows;
}

}  // namespace nibble
