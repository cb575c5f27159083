// Reference rope: the angle is the float32 product that models are trained with; its sine and
// cosine are taken in double.
#include <cmath>

#include "ops/reference/reference.h"

namespace nibble::reference {

void rope(const RopeArgs& args, ExecContext& context) {
  const std::int64_t half = args.rotary_dim / 2;
  const auto rotate_row = [&](std::int64_t t) {
    const auto position = static_cast<float>(args.positions[static_cast<std::size_t>(t)]);
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle = position * args.inv_freq[static_cast<std::size_t>(i)];
      const double c = std::cos(static_cast<double>(angle)) * static_cast<double>(args.scale);
      const double s = std::sin(static_cast<double>(angle)) * static_cast<double>(args.scale);
      const std::int64_t first = args.interleaved ? 2 * i : i;
      const std::int64_t second = args.interleaved ? 2 * i + 1 : i + half;
      for (std::int64_t h = 0; h < args.heads; ++h) {
        float* x = args.x.data + t * args.x.row_stride + h * args.x.head_stride;
        const double a = x[first];
        const double b = x[second];
        x[first] = static_cast<float>(a * c - b * s);
        x[second] = static_cast<float>(b * c + a * s);
      }
    }
  };
  context.pool.parallel_for(args.rows, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) rotate_row(t);
  });
}

}  // namespace nibble::reference
