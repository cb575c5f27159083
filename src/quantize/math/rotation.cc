#include "quantize/math/rotation.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"
#include "formats/hadamard.h"

namespace nibble {
namespace {

// Beyond it the dense factor would cost more than what its mixing gains.
constexpr std::int64_t kMaxOrder = 512;

bool is_prime(std::int64_t n) {
  if (n < 2) return false;
  for (std::int64_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

// Of i modulo a prime: 0 for multiples, 1 for squares, -1 for the others.
std::vector<int> quadratic_characters(std::int64_t prime) {
  std::vector<int> character(static_cast<std::size_t>(prime), -1);
  character[0] = 0;
  for (std::int64_t i = 1; i < prime; ++i) character[static_cast<std::size_t>(i * i % prime)] = 1;
  return character;
}

// [prime + 1, prime + 1]: zeros on the diagonal, C Cᵀ = prime I. Row 0 is 1 beyond its zero, and so
// is column 0, or -1 when C is skew (prime = 3 modulo 4).
std::vector<int> conference_matrix(std::int64_t prime) {
  const std::int64_t n = prime + 1;
  const std::vector<int> character = quadratic_characters(prime);
  std::vector<int> c(static_cast<std::size_t>(n * n), 0);
  const auto at = [&](std::int64_t i, std::int64_t j) -> int& {
    return c[static_cast<std::size_t>(i * n + j)];
  };
  for (std::int64_t i = 1; i < n; ++i) {
    at(0, i) = 1;
    at(i, 0) = prime % 4 == 3 ? -1 : 1;
    for (std::int64_t j = 1; j < n; ++j) {
      at(i, j) = character[static_cast<std::size_t>((i - j + prime) % prime)];
    }
  }
  return c;
}

// I + C of a skew C.
std::vector<std::int8_t> paley_first(std::int64_t order) {
  const std::vector<int> c = conference_matrix(order - 1);
  std::vector<std::int8_t> signs(c.begin(), c.end());
  for (std::int64_t i = 0; i < order; ++i) signs[static_cast<std::size_t>(i * (order + 1))] = 1;
  return signs;
}

// Of a symmetric C, every element as a matrix of two rows.
std::vector<std::int8_t> paley_second(std::int64_t order) {
  const std::int64_t n = order / 2;
  const std::vector<int> c = conference_matrix(n - 1);
  constexpr int kZero[2][2] = {{1, -1}, {-1, -1}};
  constexpr int kOne[2][2] = {{1, 1}, {1, -1}};
  std::vector<std::int8_t> signs(static_cast<std::size_t>(order * order));
  for (std::int64_t i = 0; i < order; ++i) {
    for (std::int64_t j = 0; j < order; ++j) {
      const int value = c[static_cast<std::size_t>(i / 2 * n + j / 2)];
      const int sign = value == 0 ? kZero[i % 2][j % 2] : value * kOne[i % 2][j % 2];
      signs[static_cast<std::size_t>(i * order + j)] = static_cast<std::int8_t>(sign);
    }
  }
  return signs;
}

void flip(const std::vector<float>& signs, float* x) {
  for (std::size_t i = 0; i < signs.size(); ++i) x[i] *= signs[i];
}

}  // namespace

std::vector<std::int8_t> hadamard_signs(std::int64_t order) {
  if (order == 1) return {1};
  if (order < 4 || order % 4 != 0) return {};
  if (is_prime(order - 1)) return paley_first(order);
  const std::int64_t prime = order / 2 - 1;
  return prime % 4 == 1 && is_prime(prime) ? paley_second(order) : std::vector<std::int8_t>();
}

Rotation::Rotation(const RotationOptions& options) : options_(options) {
  const std::int64_t size = options.size;
  NIBBLE_CHECK(size >= 1);
  const std::int64_t power = size & -size;
  inner_ = power;
  // The least order that leaves a power of two.
  for (std::int64_t part = power; part >= 1 && size > power; part /= 2) {
    const std::int64_t order = size / part;
    if (order > kMaxOrder) break;
    signs_ = hadamard_signs(order);
    if (signs_.empty()) continue;
    outer_ = order;
    inner_ = part;
    break;
  }
  if (options.random) {
    std::mt19937_64 random(options.seed);
    for (std::vector<float>* signs : {&before_, &after_}) {
      signs->resize(static_cast<std::size_t>(size));
      for (float& sign : *signs) sign = (random() >> 63) != 0 ? 1.0f : -1.0f;
    }
  }
  if (!options.keeps_mean || block() == 1) return;
  std::vector<float> mirror(static_cast<std::size_t>(size),
                            1 / std::sqrt(static_cast<float>(size)));
  mix(mirror.data());
  double square = 0;
  for (float& value : mirror) {
    value -= 1 / std::sqrt(static_cast<float>(size));
    square += static_cast<double>(value) * static_cast<double>(value);
  }
  if (square < 1e-12) return;  // it is kept already
  const auto scale = static_cast<float>(std::sqrt(2 / square));
  for (float& value : mirror) value *= scale;
  mirror_ = std::move(mirror);
}

void Rotation::mix(float* x) const {
  if (!before_.empty()) flip(before_, x);
  const float scale = 1 / std::sqrt(static_cast<float>(block()));
  std::vector<double> column(static_cast<std::size_t>(outer_));
  for (float* at = x; at < x + options_.size; at += block()) {
    for (std::int64_t i = 0; i < outer_; ++i) hadamard_sums(at + i * inner_, inner_);
    for (std::int64_t j = 0; outer_ > 1 && j < inner_; ++j) {
      std::ranges::fill(column, 0.0);
      for (std::int64_t i = 0; i < outer_; ++i) {
        const auto value = static_cast<double>(at[i * inner_ + j]);
        const std::int8_t* signs = signs_.data() + i * outer_;
        for (std::int64_t k = 0; k < outer_; ++k) {
          column[static_cast<std::size_t>(k)] += value * static_cast<double>(signs[k]);
        }
      }
      for (std::int64_t k = 0; k < outer_; ++k) {
        at[k * inner_ + j] = static_cast<float>(column[static_cast<std::size_t>(k)]);
      }
    }
    for (std::int64_t i = 0; i < block(); ++i) at[i] *= scale;
  }
  if (!after_.empty()) flip(after_, x);
}

void Rotation::apply(float* x) const {
  if (block() == 1) return;
  mix(x);
  if (mirror_.empty()) return;
  double dot = 0;
  for (std::size_t i = 0; i < mirror_.size(); ++i) {
    dot += static_cast<double>(x[i]) * static_cast<double>(mirror_[i]);
  }
  for (std::size_t i = 0; i < mirror_.size(); ++i) x[i] -= static_cast<float>(dot) * mirror_[i];
}

void rotate_rows(const Rotation& rotation, std::int64_t begin, std::int64_t cols, float* w,
                 ThreadPool& pool) {
  const std::int64_t size = rotation.size();
  constexpr std::int64_t kTogether = 16;  // columns whose rows are gathered in one sweep
  const std::int64_t sweeps = (cols + kTogether - 1) / kTogether;
  pool.parallel_for(sweeps, 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> gathered(static_cast<std::size_t>(kTogether * size));
    for (std::int64_t col = first * kTogether; col < std::min(cols, last * kTogether);
         col += kTogether) {
      const std::int64_t count = std::min(kTogether, cols - col);
      for (std::int64_t r = 0; r < size; ++r) {
        const float* row = w + (begin + r) * cols + col;
        for (std::int64_t c = 0; c < count; ++c) {
          gathered[static_cast<std::size_t>(c * size + r)] = row[c];
        }
      }
      for (std::int64_t c = 0; c < count; ++c) rotation.apply(gathered.data() + c * size);
      for (std::int64_t r = 0; r < size; ++r) {
        float* row = w + (begin + r) * cols + col;
        for (std::int64_t c = 0; c < count; ++c) {
          row[c] = gathered[static_cast<std::size_t>(c * size + r)];
        }
      }
    }
  });
}

}  // namespace nibble
