#include "quantize/output_loss.h"

#include <algorithm>
#include <span>

#include "backends/rows.h"
#include "eval/perplexity.h"

namespace nibble {
namespace {

constexpr std::int64_t kMaxLogitBytes = std::int64_t{32} << 20;

// In the host's memory.
void run_output(const ModelSpec& spec, const HeadWeights& head, const float* hidden,
                std::int64_t count, Backend& backend, std::vector<float>& out) {
  const std::int64_t size = count * (spec.decoder ? spec.vocab : spec.hidden);
  const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(float);
  if (!spec.decoder) return backend.memory().copy_out(hidden, bytes, out.data());
  if (backend.memory().is_host()) return run_head(spec, head, hidden, count, backend, out.data());
  Rows logits(backend, count, spec.vocab);
  run_head(spec, head, hidden, count, backend, logits.data());
  backend.memory().copy_out(logits.data(), bytes, out.data());
}

double row_loss(const ModelSpec& spec, std::span<const float> p, std::span<const float> q) {
  if (spec.decoder) return kl_divergence(p, q);
  double distance = 0;
  double norm = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double d = static_cast<double>(p[i]) - static_cast<double>(q[i]);
    distance += d * d;
    norm += static_cast<double>(p[i]) * static_cast<double>(p[i]);
  }
  return norm > 0 ? distance / norm : distance;
}

}  // namespace

std::vector<double> output_losses(const ModelSpec& spec, const Checkpoint& source,
                                  const float* reference, const float* hidden,
                                  std::size_t candidates, std::int64_t rows, Backend& backend) {
  const EmbeddingWeights embedding = load_embedding(spec, source, backend);
  const HeadWeights head = load_head(spec, embedding, source, backend);
  const std::int64_t width = spec.decoder ? spec.vocab : spec.hidden;
  const std::int64_t step = std::clamp<std::int64_t>(
      kMaxLogitBytes / (width * static_cast<std::int64_t>(sizeof(float))), 1, rows);
  std::vector<float> p(static_cast<std::size_t>(step * width));
  std::vector<float> q(p.size());
  std::vector<double> row_losses(static_cast<std::size_t>(step));
  std::vector<double> sums(candidates, 0.0);
  const auto row = [&](const std::vector<float>& values, std::int64_t r) {
    return std::span(values).subspan(static_cast<std::size_t>(r * width),
                                     static_cast<std::size_t>(width));
  };
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t count = std::min(step, rows - begin);
    run_output(spec, head, reference + begin * spec.hidden, count, backend, p);
    for (std::size_t c = 0; c < candidates; ++c) {
      const float* states = hidden + static_cast<std::int64_t>(c) * rows * spec.hidden;
      run_output(spec, head, states + begin * spec.hidden, count, backend, q);
      backend.pool().parallel_for(count, 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t r = first; r < last; ++r) {
          row_losses[static_cast<std::size_t>(r)] = row_loss(spec, row(p, r), row(q, r));
        }
      });
      for (std::int64_t r = 0; r < count; ++r) sums[c] += row_losses[static_cast<std::size_t>(r)];
    }
  }
  for (double& sum : sums) sum /= static_cast<double>(rows);
  return sums;
}

}  // namespace nibble
