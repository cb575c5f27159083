// Prints the speed of every implementation of linear as a markdown table:
//   bench_linear [ROWSxCOLS ...]
#include <fmt/format.h>

#include <cstdio>
#include <string>

#include "backends/bench_linear.h"

namespace {

int run(int count, char** words) {
  using nibble::LinearBench;
  LinearBench bench;
  if (count > 1) bench.shapes.clear();
  for (int i = 1; i < count; ++i) {
    LinearBench::Shape shape;
    long long rows = 0;
    long long cols = 0;
    if (std::sscanf(words[i], "%lldx%lld", &rows, &cols) != 2 || rows <= 0 || cols <= 0) {
      fmt::print(stderr, "usage: bench_linear [ROWSxCOLS ...]\n");
      return 2;
    }
    shape.rows = rows;
    shape.cols = cols;
    bench.shapes.push_back(shape);
  }
  const auto options = nibble::BackendOptions::from_environment();
  const auto backend = nibble::make_cpu_backend(options);
  const auto limits = nibble::cpu::measure_machine(backend->pool(), backend->caps());
  fmt::print("{}, {} threads, {}\n\nmeasured limits: {:.0f} GFLOP/s float32, {:.1f} GB/s\n\n",
             nibble::cpu::machine_info().cpu_model, backend->pool().threads(),
             nibble::to_string(backend->caps().isa),
             limits.peak(nibble::Arithmetic::kFloat32).all_threads * 1e-9,
             limits.read_bandwidth.all_threads * 1e-9);
  fmt::print(
      "| shape | format | m | implementation | µs | GFLOP/s | of peak | GB/s | of bandwidth |\n");
  fmt::print("| --- | --- | --: | --- | --: | --: | --: | --: | --: |\n");
  for (const nibble::BenchRow& row : nibble::bench_linear(options, limits, bench)) {
    fmt::print("| {}x{} | {} | {} | {} | {:.1f} | {:.1f} | {:.0f} % | {:.1f} | {:.0f} % |\n",
               row.rows, row.cols, row.format, row.m, row.impl, row.seconds * 1e6, row.gflops,
               100 * row.flops_fraction, row.gbytes_per_second, 100 * row.bandwidth_fraction);
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  try {
    return run(count, words);
  } catch (const nibble::Error& error) {
    fmt::print(stderr, "bench_linear: [{}] {}\n", nibble::to_string(error.kind()), error.what());
    return nibble::exit_status(error.kind());
  }
}
