// What the device writes into a cache against encode_kv_row, bit by bit, and its rotary embedding
// against float64.
#include "backends/cuda/kernels/kv_write.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "cuda/device_array.h"
#include "formats/kv_type.h"

namespace nibble::test {
namespace {

using cuda::DeviceSequence;
using cuda::KvWriteLaunch;
using cuda::RopeLaunch;

constexpr int kHeads = 3;
constexpr std::int64_t kCapacity = 24;

// Rows that try every rule of the encoding: ordinary ones, ties, constants, zeros of both signs,
// tiny and huge ranges, NaN and infinities.
void fill_row(int kind, float* row, int head_dim, std::mt19937* random) {
  std::normal_distribution<float> normal;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (int d = 0; d < head_dim; ++d) {
    const float x = normal(*random);
    switch (kind % 10) {
      case 0:
        row[d] = x;
        break;
      case 1:
        row[d] = static_cast<float>(d % 31) * 0.5f;  // halves: ties of int4 with step 1
        break;
      case 2:
        row[d] = 3.25f;
        break;
      case 3:
        row[d] = d % 3 == 1 ? -0.0f : 0.0f;
        break;
      case 4:
        row[d] = d % 2 == 0 ? -0.0f : std::abs(x);
        break;
      case 5:
        row[d] = x * 1e-38f;
        break;
      case 6:
        row[d] = x * 1e38f;
        break;
      case 7:
        row[d] = x * 1e5f;  // beyond f16
        break;
      case 8:
        row[d] = d == head_dim / 2 ? std::numeric_limits<float>::quiet_NaN() : x;
        break;
      default:
        row[d] = d == head_dim - 1 ? -kInfinity : x * 6e-8f;  // f16 subnormals
    }
  }
}

// Two sequences of a batch and a row that belongs to none.
struct WriteCase {
  KvType type;
  int head_dim;
  std::int64_t rows = 13;
  std::int64_t q_begin[2] = {0, 9};
  std::int64_t q_rows[2] = {8, 4};
  std::int64_t q_offset[2] = {5, 0};
};

class Caches {
 public:
  explicit Caches(const WriteCase& c)
      : case_(c),
        row_bytes_(kv_row_bytes(c.type, c.head_dim)),
        bytes_(static_cast<std::size_t>(4 * kHeads * kCapacity * row_bytes_)),
        device_(bytes_) {
    device_.fill(0xa5);
    std::vector<DeviceSequence> sequences;
    for (int s = 0; s < 2; ++s) {
      std::byte* k = device_.data() + plane(s, false);
      std::byte* v = device_.data() + plane(s, true);
      sequences.push_back({c.q_begin[s], c.q_rows[s], c.q_offset[s] + c.q_rows[s], c.q_offset[s], k,
                           row_bytes_, kCapacity * row_bytes_, v, row_bytes_,
                           kCapacity * row_bytes_});
    }
    sequences_ = std::make_unique<DeviceArray<DeviceSequence>>(sequences);
  }

  const DeviceSequence* sequences() { return sequences_->data(); }
  std::vector<std::byte> host() const { return device_.host(); }

  // What the caches must hold after rows k and v [rows, kHeads, head_dim] were stored.
  std::vector<std::byte> expected(const std::vector<float>& k, const std::vector<float>& v) const {
    std::vector<std::byte> bytes(bytes_, std::byte{0xa5});
    for (int s = 0; s < 2; ++s) {
      for (std::int64_t t = 0; t < case_.q_rows[s]; ++t) {
        for (int h = 0; h < kHeads; ++h) {
          const std::int64_t at = (h * kCapacity + case_.q_offset[s] + t) * row_bytes_;
          const std::int64_t x = ((case_.q_begin[s] + t) * kHeads + h) * case_.head_dim;
          encode_kv_row(case_.type, k.data() + x, case_.head_dim,
                        bytes.data() + plane(s, false) + at);
          encode_kv_row(case_.type, v.data() + x, case_.head_dim,
                        bytes.data() + plane(s, true) + at);
        }
      }
    }
    return bytes;
  }

 private:
  std::int64_t plane(int sequence, bool values) const {
    return (2 * sequence + (values ? 1 : 0)) * kHeads * kCapacity * row_bytes_;
  }

  WriteCase case_;
  std::int64_t row_bytes_;
  std::size_t bytes_;
  DeviceArray<std::byte> device_;
  std::unique_ptr<DeviceArray<DeviceSequence>> sequences_;
};

KvWriteLaunch make_launch(const WriteCase& c, Caches* caches, const float* k, const float* v) {
  KvWriteLaunch launch;
  launch.k = k;
  launch.v = v;
  launch.k_row_stride = launch.v_row_stride = kHeads * c.head_dim;
  launch.k_head_stride = launch.v_head_stride = c.head_dim;
  launch.rows = c.rows;
  launch.kv_heads = kHeads;
  launch.head_dim = c.head_dim;
  launch.kv_type = c.type;
  launch.sequences = caches->sequences();
  launch.sequence_count = 2;
  return launch;
}

std::vector<float> make_rows(const WriteCase& c, int first_kind, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> x(static_cast<std::size_t>(c.rows * kHeads * c.head_dim));
  for (std::int64_t i = 0; i < c.rows * kHeads; ++i) {
    fill_row(first_kind + static_cast<int>(i), x.data() + i * c.head_dim, c.head_dim, &random);
  }
  return x;
}

TEST(KvWriteCuda, EqualsTheHostBitByBit) {
  NIBBLE_NEEDS_CUDA();
  for (const KvType type : kKvTypes) {
    for (const int head_dim : {1, 7, 64, 80, 128, 255, 256, 300}) {
      SCOPED_TRACE(std::string(to_string(type)) + " " + std::to_string(head_dim));
      const WriteCase c{type, head_dim};
      const std::vector<float> k = make_rows(c, 0, 1);
      const std::vector<float> v = make_rows(c, 4, 2);
      DeviceArray<float> device_k(k);
      DeviceArray<float> device_v(v);
      Caches caches(c);
      ASSERT_EQ(cudaSuccess,
                cuda::kv_write(make_launch(c, &caches, device_k.data(), device_v.data()), nullptr));
      const std::vector<std::byte> got = caches.host();
      const std::vector<std::byte> expected = caches.expected(k, v);
      EXPECT_EQ(0, std::memcmp(got.data(), expected.data(), got.size()));
    }
  }
}

// Element d of a head rotated by position * inv_freq, in float64 from the float32 angle.
double rotated(const float* x, int d, int rotary_dim, bool interleaved,
               const std::vector<float>& inv_freq, int position, float scale) {
  if (d >= rotary_dim) return static_cast<double>(x[d]);
  const int half = rotary_dim / 2;
  const int pair = interleaved ? d / 2 : d % half;
  const double a = static_cast<double>(x[interleaved ? 2 * pair : pair]);
  const double b = static_cast<double>(x[interleaved ? 2 * pair + 1 : pair + half]);
  const float angle = static_cast<float>(position) * inv_freq[static_cast<std::size_t>(pair)];
  const double c = std::cos(static_cast<double>(angle)) * static_cast<double>(scale);
  const double s = std::sin(static_cast<double>(angle)) * static_cast<double>(scale);
  const bool second = interleaved ? d % 2 == 1 : d >= half;
  return second ? b * c + a * s : a * c - b * s;
}

// Rotates the rows of `x`, returns the largest |got - rotated| / (|x| of the head's largest).
double rope_error(const std::vector<float>& x, const std::vector<float>& got, const WriteCase& c,
                  const RopeLaunch& rope, int heads, const std::vector<float>& inv_freq,
                  const std::vector<std::int32_t>& positions) {
  double worst = 0;
  for (std::int64_t i = 0; i < c.rows * heads; ++i) {
    const float* row = x.data() + i * c.head_dim;
    double largest = 0;
    for (int d = 0; d < c.head_dim; ++d) {
      largest = std::max(largest, std::abs(static_cast<double>(row[d])));
    }
    for (int d = 0; d < c.head_dim; ++d) {
      const double wanted = rotated(row, d, rope.rotary_dim, rope.interleaved, inv_freq,
                                    positions[static_cast<std::size_t>(i / heads)], rope.scale);
      const double error =
          std::abs(wanted - static_cast<double>(got[static_cast<std::size_t>(i * c.head_dim + d)]));
      worst = std::isnan(error) ? INFINITY : std::max(worst, error / largest);
    }
  }
  return worst;
}

TEST(RopeAndStore, RotatesQueriesAndStoresRotatedKeys) {
  NIBBLE_NEEDS_CUDA();
  for (const bool interleaved : {false, true}) {
    for (const int rotary_dim : {32, 96, 128}) {
      SCOPED_TRACE(std::to_string(rotary_dim) + (interleaved ? " interleaved" : ""));
      const WriteCase c{KvType::kF32, 128};
      constexpr int kQueryHeads = 5;
      std::mt19937 random(7);
      std::normal_distribution<float> normal;
      std::vector<float> q(static_cast<std::size_t>(c.rows * kQueryHeads * c.head_dim));
      std::vector<float> k(static_cast<std::size_t>(c.rows * kHeads * c.head_dim));
      for (float& x : q) x = normal(random);
      for (float& x : k) x = normal(random);
      const std::vector<float> v = k;
      std::vector<float> inv_freq;
      for (int i = 0; i < rotary_dim / 2; ++i) {
        inv_freq.push_back(
            std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(rotary_dim)));
      }
      std::vector<std::int32_t> positions;
      for (std::int64_t t = 0; t < c.rows; ++t) {
        positions.push_back(static_cast<std::int32_t>(t * 9973));
      }
      DeviceArray<float> device_q(q);
      DeviceArray<float> device_k(k);
      DeviceArray<float> device_v(v);
      DeviceArray<float> device_freq(inv_freq);
      DeviceArray<std::int32_t> device_positions(positions);
      Caches caches(c);
      RopeLaunch rope;
      rope.q = device_q.data();
      rope.q_row_stride = kQueryHeads * c.head_dim;
      rope.q_head_stride = c.head_dim;
      rope.heads = kQueryHeads;
      rope.rotary_dim = rotary_dim;
      rope.interleaved = interleaved;
      rope.inv_freq = device_freq.data();
      rope.positions = device_positions.data();
      rope.scale = 1.25f;
      ASSERT_EQ(cudaSuccess,
                cuda::rope_and_store(make_launch(c, &caches, device_k.data(), device_v.data()),
                                     rope, nullptr));
      // Sine and cosine within 2 units, two products and a sum, all times the scale.
      const double bound = 8 * 0x1p-24 * 1.25 * 2;
      EXPECT_LE(rope_error(q, device_q.host(), c, rope, kQueryHeads, inv_freq, positions), bound);

      // The keys that were stored are rotated, the values are not, nothing else changes.
      std::vector<float> rotated_k = k;
      const std::vector<std::byte> got = caches.host();
      const auto* rows = reinterpret_cast<const float*>(got.data());
      for (int s = 0; s < 2; ++s) {
        for (std::int64_t t = 0; t < c.q_rows[s]; ++t) {
          for (int h = 0; h < kHeads; ++h) {
            std::memcpy(rotated_k.data() + ((c.q_begin[s] + t) * kHeads + h) * c.head_dim,
                        rows + ((2 * s * kHeads + h) * kCapacity + c.q_offset[s] + t) * c.head_dim,
                        static_cast<std::size_t>(c.head_dim) * 4);
          }
        }
      }
      const std::vector<std::byte> expected = caches.expected(rotated_k, v);
      EXPECT_EQ(0, std::memcmp(got.data(), expected.data(), got.size()));
      for (int h = 0; h < kHeads; ++h) {  // the row of no sequence: kept out of the comparison
        for (int d = 0; d < c.head_dim; ++d) {
          const auto at = static_cast<std::size_t>((8 * kHeads + h) * c.head_dim + d);
          rotated_k[at] =
              static_cast<float>(rotated(k.data() + (8 * kHeads + h) * c.head_dim, d, rotary_dim,
                                         interleaved, inv_freq, positions[8], rope.scale));
        }
      }
      EXPECT_LE(rope_error(k, rotated_k, c, rope, kHeads, inv_freq, positions), bound);
    }
  }
}

}  // namespace
}  // namespace nibble::test
