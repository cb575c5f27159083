// Every attention kernel against float64 on the host, over the types of cache, the masks, the
// groupings of heads and ragged batches.
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "backends/cuda/kernels/attention_decode.h"
#include "backends/cuda/kernels/attention_exact.h"
#include "backends/cuda/kernels/attention_prefill.h"
#include "backends/cuda/kernels/attention_prefill_sm90.h"
#include "cuda/attention_oracle.h"
#include "cuda/device_array.h"
#include "cuda/repeats.h"

namespace nibble::test {
namespace {

using cuda::AttentionLaunch;
using cuda::DeviceSequence;

// A kernel family as the tests see it.
struct AttentionKernel {
  std::string name;
  std::function<const char*(const AttentionLaunch&)> unsupported;
  std::function<std::size_t(const AttentionLaunch&)> workspace;
  std::function<std::size_t(const AttentionLaunch&)> zero_bytes;
  std::function<cudaError_t(const AttentionLaunch&, cudaStream_t)> run;
  std::function<AttentionRounding(KvType)> rounding;
};

AttentionKernel exact_kernel() {
  return {"exact",
          cuda::attention_exact_unsupported,
          [](const AttentionLaunch&) { return std::size_t{0}; },
          [](const AttentionLaunch&) { return std::size_t{0}; },
          cuda::attention_exact,
          [](KvType) { return AttentionRounding{}; }};
}

AttentionKernel decode_kernel() {
  return {"decode",
          cuda::attention_decode_unsupported,
          cuda::attention_decode_workspace,
          [](const AttentionLaunch&) { return cuda::kAttentionCounterBytes; },
          cuda::attention_decode,
          [](KvType type) {
            const bool half = type == KvType::kF16 || is_quantized(type);
            if (half) return AttentionRounding{false, true, false, 0x1p-11, 0x1p-24};
            return AttentionRounding{true, false, type == KvType::kF32, 0x1p-8, 0};
          }};
}

AttentionKernel prefill_kernel() {
  return {"prefill",
          cuda::attention_prefill_unsupported,
          cuda::attention_prefill_workspace,
          [](const AttentionLaunch&) { return std::size_t{0}; },
          cuda::attention_prefill,
          [](KvType) {
            return AttentionRounding{true, false, true, 0x1p-8, 0};
          }};
}

AttentionKernel prefill_sm90_kernel() {
  AttentionKernel kernel = prefill_kernel();
  kernel.name = "prefill_sm90";
  kernel.unsupported = cuda::attention_prefill_sm90_unsupported;
  kernel.workspace = cuda::attention_prefill_sm90_workspace;
  kernel.run = cuda::attention_prefill_sm90;
  return kernel;
}

// The data of a call on the device.
class DeviceCall {
 public:
  explicit DeviceCall(const AttentionData& data)
      : q_(data.q), slopes_(data.slopes), out_(out_size(data)), out_stride_(stride(data)) {
    const AttentionCase& c = data.shape;
    std::vector<DeviceSequence> sequences;
    for (std::size_t i = 0; i < c.sequences.size(); ++i) {
      k_.push_back(std::make_unique<DeviceArray<std::byte>>(data.k[i]));
      v_.push_back(std::make_unique<DeviceArray<std::byte>>(data.v[i]));
      const SequenceShape& s = c.sequences[i];
      sequences.push_back({q_begin(c, i), s.q_rows, s.kv_rows, s.kv_rows - s.q_rows,
                           k_.back()->data(), data.row_stride, data.head_stride[i],
                           v_.back()->data(), data.row_stride, data.head_stride[i]});
      launch_.max_q_rows = std::max(launch_.max_q_rows, s.q_rows);
      launch_.max_kv_rows = std::max(launch_.max_kv_rows, s.kv_rows);
    }
    sequences_ = std::make_unique<DeviceArray<DeviceSequence>>(sequences);
    launch_.q = q_.data();
    launch_.q_row_stride = data.q_stride;
    launch_.q_head_stride = c.head_dim;
    launch_.sequences = sequences_->data();
    launch_.sequence_count = static_cast<int>(sequences.size());
    launch_.heads = c.heads;
    launch_.kv_heads = c.kv_heads;
    launch_.head_dim = c.head_dim;
    launch_.kv_type = c.kv_type;
    launch_.causal = c.causal;
    launch_.window = c.window;
    launch_.scale = data.scale;
    launch_.softcap = c.softcap;
    launch_.alibi_slopes = c.alibi ? slopes_.data() : nullptr;
    launch_.out = out_.data();
    launch_.out_stride = out_stride_;
    cudaDeviceGetAttribute(&launch_.sm_count, cudaDevAttrMultiProcessorCount, 0);
  }

  AttentionLaunch& launch() { return launch_; }
  std::int64_t out_stride() const { return out_stride_; }

  // Output of a call on poisoned memory, which also must leave its counters as they were.
  std::vector<float> run(const AttentionKernel& kernel) {
    const std::size_t bytes = kernel.workspace(launch_);
    const std::size_t zeros = kernel.zero_bytes(launch_);
    DeviceArray<std::byte> workspace(bytes);
    workspace.fill(0xff);
    if (zeros > 0) {
      EXPECT_EQ(cudaSuccess, cudaMemset(workspace.data(), 0, zeros));
    }
    out_.fill(0xff);
    launch_.workspace = workspace.data();
    EXPECT_EQ(cudaSuccess, kernel.run(launch_, nullptr));
    const std::vector<std::byte> after = workspace.host();
    for (std::size_t i = 0; i < zeros; ++i) EXPECT_EQ(after[i], std::byte{0}) << "counter " << i;
    return out_.host();
  }

 private:
  static std::int64_t stride(const AttentionData& data) {
    return data.shape.heads * data.shape.head_dim + 4;
  }
  static std::size_t out_size(const AttentionData& data) {
    return static_cast<std::size_t>(data.rows * stride(data));
  }

  DeviceArray<float> q_;
  DeviceArray<float> slopes_;
  DeviceArray<float> out_;
  std::int64_t out_stride_;
  std::vector<std::unique_ptr<DeviceArray<std::byte>>> k_;
  std::vector<std::unique_ptr<DeviceArray<std::byte>>> v_;
  std::unique_ptr<DeviceArray<DeviceSequence>> sequences_;
  AttentionLaunch launch_;
};

std::string describe(const AttentionCase& c) {
  return std::string(to_string(c.kv_type)) + " heads " + std::to_string(c.heads) + "/" +
         std::to_string(c.kv_heads) + " dim " + std::to_string(c.head_dim) +
         (c.causal ? " causal" : " all") + " window " + std::to_string(c.window) + " softcap " +
         std::to_string(c.softcap) + (c.alibi ? " alibi" : "") +
         (c.token_major ? " token-major" : "");
}

// Largest error over its bound of all elements of one sequence; NaN counts as infinite.
double worst_share(const AttentionData& data, const AttentionRounding& rounding,
                   std::size_t sequence, const std::vector<float>& out, std::int64_t out_stride) {
  const AttentionCase& c = data.shape;
  double worst = 0;
  for (int kv_head = 0; kv_head < c.kv_heads; ++kv_head) {
    const DecodedRows keys =
        decode_rows(data, data.k[sequence], sequence, kv_head, rounding.rows_bf16);
    const DecodedRows values =
        decode_rows(data, data.v[sequence], sequence, kv_head, rounding.rows_bf16);
    const int group = c.heads / c.kv_heads;
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (std::int64_t t = 0; t < c.sequences[sequence].q_rows; ++t) {
        const AttentionRow row = attend_row(data, rounding, sequence, t, head, keys, values);
        const float* got = out.data() + (q_begin(c, sequence) + t) * out_stride + head * c.head_dim;
        for (int d = 0; d < c.head_dim; ++d) {
          const auto at = static_cast<std::size_t>(d);
          const double error = std::abs(static_cast<double>(got[d]) - row.out[at]);
          const double share = error == 0 ? 0 : error / row.bound[at];
          worst = std::isnan(share) ? INFINITY : std::max(worst, share);
        }
      }
    }
  }
  return worst;
}

void check(const AttentionKernel& kernel, const AttentionCase& c, unsigned seed) {
  SCOPED_TRACE(kernel.name + ": " + describe(c));
  const AttentionData data = make_attention_data(c, seed);
  DeviceCall call(data);
  ASSERT_EQ(nullptr, kernel.unsupported(call.launch()));
  const std::vector<float> out = call.run(kernel);
  for (std::size_t i = 0; i < c.sequences.size(); ++i) {
    EXPECT_LE(worst_share(data, kernel.rounding(c.kv_type), i, out, call.out_stride()), 1)
        << "sequence " << i;
  }
  for (std::int64_t row = 0; row < data.rows; ++row) {
    const std::int64_t end = (row + 1) * call.out_stride();
    EXPECT_TRUE(std::isnan(out[static_cast<std::size_t>(end - 1)])) << "beyond row " << row;
  }
  const std::vector<float> again = call.run(kernel);
  EXPECT_EQ(0, std::memcmp(out.data(), again.data(), out.size() * sizeof(float)))
      << "two runs differ";
}

// Masks and biases, with the other fields as in `c`.
std::vector<AttentionCase> options(const AttentionCase& c) {
  std::vector<AttentionCase> cases(6, c);
  cases[1].causal = false;
  cases[2].window = 37;
  cases[3].softcap = 2.5f;
  cases[4].alibi = true;
  cases[5].causal = false;
  cases[5].window = 100;
  cases[5].softcap = 5;
  cases[5].alibi = true;
  return cases;
}

const std::vector<SequenceShape> kShort = {{1, 1}, {1, 17}, {3, 300}, {0, 5}, {5, 5}, {2, 1025}};
const std::vector<SequenceShape> kLong = {{1, 1}, {130, 130}, {150, 420}, {0, 9}, {64, 257}};

void check_all(const AttentionKernel& kernel, const std::vector<SequenceShape>& sequences,
               const std::vector<int>& head_dims) {
  unsigned seed = 1;
  for (const KvType type : kKvTypes) {
    AttentionCase c;
    c.kv_type = type;
    c.sequences = sequences;
    c.heads = 4;
    c.kv_heads = 1;
    for (AttentionCase& option : options(c)) {
      option.token_major = seed % 2 == 0;
      check(kernel, option, ++seed);
    }
    for (const int head_dim : head_dims) {
      AttentionCase other = c;
      other.head_dim = head_dim;
      other.heads = seed % 2 == 0 ? 2 : 6;
      other.kv_heads = 2;
      other.token_major = seed % 3 == 0;
      const AttentionData data = make_attention_data({type, 2, 2, head_dim, {{1, 1}}}, 1);
      if (kernel.unsupported(DeviceCall(data).launch()) != nullptr) continue;
      check(kernel, other, ++seed);
    }
  }
}

TEST(AttentionExact, EqualsFloat64) {
  NIBBLE_NEEDS_CUDA();
  check_all(exact_kernel(), kShort, {1, 7, 80, 256});
}

TEST(AttentionDecode, EqualsFloat64) {
  NIBBLE_NEEDS_CUDA();
  check_all(decode_kernel(), kShort, {16, 64, 80, 96, 256});
}

// One sequence, so that its keys are split over many blocks; groups that fill a block, and more
// rows than one holds.
TEST(AttentionDecode, SplitsLongSequences) {
  NIBBLE_NEEDS_CUDA();
  for (const KvType type : kKvTypes) {
    AttentionCase c;
    c.kv_type = type;
    for (const int heads : {1, 8, 16}) {
      for (const std::int64_t rows : {1, 8}) {
        c.heads = heads;
        c.kv_heads = 1;
        c.sequences = {{rows, 5003}};
        check(decode_kernel(), c, 11);
      }
    }
  }
}

// A captured graph meets shorter sequences than the launch was cut for.
TEST(AttentionDecode, TakesLengthsFromTheDevice) {
  NIBBLE_NEEDS_CUDA();
  AttentionCase c;
  c.sequences = {{1, 40}, {1, 900}};
  const AttentionData data = make_attention_data(c, 3);
  DeviceCall call(data);
  call.launch().max_kv_rows = 100000;
  call.launch().max_q_rows = 4;
  const std::vector<float> out = call.run(decode_kernel());
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_LE(worst_share(data, decode_kernel().rounding(c.kv_type), i, out, call.out_stride()), 1);
  }
}

TEST(AttentionPrefill, EqualsFloat64) {
  NIBBLE_NEEDS_CUDA();
  check_all(prefill_kernel(), kLong, {8, 64, 80, 96, 256});
}

TEST(AttentionPrefillSm90, EqualsFloat64) {
  NIBBLE_NEEDS_CUDA();
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  if (major != 9) GTEST_SKIP() << "no device of compute capability 9";
  check_all(prefill_sm90_kernel(), kLong, {8, 64, 80, 96});
}

void expect_same_bits(const AttentionKernel& kernel, const AttentionCase& c) {
  SCOPED_TRACE(kernel.name + ": " + describe(c));
  DeviceCall call(make_attention_data(c, 5));
  ASSERT_EQ(nullptr, kernel.unsupported(call.launch()));
  const std::vector<float> first = call.run(kernel);
  for (int i = 0; i < repeats(100); ++i) {
    const std::vector<float> again = call.run(kernel);
    ASSERT_EQ(0, std::memcmp(first.data(), again.data(), first.size() * sizeof(float))) << i;
  }
}

TEST(AttentionDecode, TheSameBitsAtEveryRun) {
  NIBBLE_NEEDS_CUDA();
  for (const KvType type : {KvType::kBF16, KvType::kInt8}) {
    expect_same_bits(decode_kernel(), {type, 8, 2, 128, {{1, 3000}, {1, 70}}});
  }
}

TEST(AttentionPrefillSm90, TheSameBitsAtEveryRun) {
  NIBBLE_NEEDS_CUDA();
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  if (major != 9) GTEST_SKIP() << "no device of compute capability 9";
  expect_same_bits(prefill_sm90_kernel(), {KvType::kBF16, 4, 2, 128, {{300, 300}, {129, 700}}});
}

TEST(Attention, SaysWhatItDoesNotTake) {
  AttentionLaunch args;
  args.heads = 3;
  args.kv_heads = 2;
  args.head_dim = 64;
  args.sm_count = 132;
  for (const AttentionKernel& kernel : {exact_kernel(), decode_kernel(), prefill_kernel()}) {
    EXPECT_NE(nullptr, kernel.unsupported(args));
    EXPECT_EQ(cudaErrorInvalidValue, kernel.run(args, nullptr));
  }
  args.heads = 4;
  args.head_dim = 65;
  EXPECT_EQ(nullptr, cuda::attention_exact_unsupported(args));
  EXPECT_NE(nullptr, cuda::attention_decode_unsupported(args));
  EXPECT_NE(nullptr, cuda::attention_prefill_unsupported(args));
}

}  // namespace
}  // namespace nibble::test
