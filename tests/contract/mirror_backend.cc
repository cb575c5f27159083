#include "contract/mirror_backend.h"

#include <algorithm>
#include <concepts>
#include <deque>
#include <map>
#include <variant>

namespace nibble::test {
namespace {

// Host ranges that one op uses, and their copies on the device. Ranges that overlap share a copy.
class Mirror {
 public:
  explicit Mirror(DeviceMemory& memory) : memory_(memory) {}

  // Ranges are added first, then mapped.
  void add(const void* data, std::int64_t bytes) {
    if (data == nullptr || bytes <= 0) return;
    auto begin = static_cast<const std::byte*>(data);
    auto end = begin + bytes;
    for (auto it = ranges_.begin(); it != ranges_.end();) {
      const bool apart = it->first > end || it->second.end < begin;
      if (apart) {
        ++it;
        continue;
      }
      begin = std::min(begin, it->first);
      end = std::max(end, it->second.end);
      it = ranges_.erase(it);
    }
    ranges_[begin] = {end, {}};
  }

  void upload() {
    for (auto& [begin, range] : ranges_) {
      // The same address modulo 64 as on the host, so that kernels meet the same alignment.
      const auto shift = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(begin) % 64);
      range.copy = memory_.allocate(DType::kU8, {range.end - begin + shift});
      range.shift = shift;
      memory_.copy_in(begin, static_cast<std::size_t>(range.end - begin), device_of(range));
    }
  }

  void download() {
    for (auto& [begin, range] : ranges_) {
      memory_.copy_out(device_of(range), static_cast<std::size_t>(range.end - begin),
                       const_cast<std::byte*>(begin));
    }
  }

  template <class T>
  T* map(T* data) {
    if (data == nullptr) return nullptr;
    const auto at = reinterpret_cast<const std::byte*>(data);
    auto it = ranges_.upper_bound(at);
    if (it == ranges_.begin()) return data;  // an empty range: never read
    --it;
    if (at > it->second.end) return data;
    return reinterpret_cast<T*>(device_of(it->second) + (at - it->first));
  }
  template <class T>
  HeadView<T> map(const HeadView<T>& view) {
    return {static_cast<T*>(const_cast<void*>(
                static_cast<const void*>(map(static_cast<const std::byte*>(view.data))))),
            view.row_stride, view.head_stride};
  }

 private:
  struct Range {
    const std::byte* end = nullptr;
    Tensor copy;
    std::int64_t shift = 0;
  };
  static std::byte* device_of(Range& range) {
    return static_cast<std::byte*>(range.copy.address()) + range.shift;
  }

  DeviceMemory& memory_;
  std::map<const std::byte*, Range> ranges_;
};

constexpr std::int64_t kFloat = sizeof(float);
constexpr std::int64_t kDouble = sizeof(double);

std::int64_t matrix_bytes(std::int64_t rows, std::int64_t cols, std::int64_t stride) {
  return rows == 0 || cols == 0 ? 0 : ((rows - 1) * stride + cols) * kFloat;
}

// Strides in units of `unit` bytes; the last row has `row` bytes.
template <class T>
void add_heads(Mirror& mirror, const HeadView<T>& view, std::int64_t rows, std::int64_t heads,
               std::int64_t unit, std::int64_t row) {
  if (rows == 0 || heads == 0) return;
  mirror.add(view.data,
             ((rows - 1) * view.row_stride + (heads - 1) * view.head_stride) * unit + row);
}

void add_ranges(Mirror& mirror, const LinearArgs& args) {
  const QuantTensor& w = args.w->canonical;
  mirror.add(args.x, matrix_bytes(args.m, w.cols, args.x_stride));
  mirror.add(args.bias, w.rows * kFloat);
  mirror.add(args.y, matrix_bytes(args.m, w.rows, args.y_stride));
}
LinearArgs mapped(Mirror& mirror, LinearArgs args) {
  args.x = mirror.map(args.x);
  args.bias = mirror.map(args.bias);
  args.y = mirror.map(args.y);
  return args;
}

void add_ranges(Mirror& mirror, const EmbedArgs& args) {
  mirror.add(args.out, static_cast<std::int64_t>(args.ids.size()) * args.table->cols * kFloat);
  const std::int64_t chosen = args.ids.empty() ? 0 : -std::ranges::min(args.ids);
  mirror.add(args.chosen, std::max<std::int64_t>(chosen, 0) * 4);
}
EmbedArgs mapped(Mirror& mirror, EmbedArgs args) {
  args.out = mirror.map(args.out);
  args.chosen = mirror.map(args.chosen);
  return args;
}

void add_ranges(Mirror& mirror, const NormArgs& args) {
  mirror.add(args.x, matrix_bytes(args.rows, args.cols, args.x_stride));
  mirror.add(args.y, matrix_bytes(args.rows, args.cols, args.y_stride));
  mirror.add(args.weight, args.cols * kFloat);
  mirror.add(args.bias, args.cols * kFloat);
}
NormArgs mapped(Mirror& mirror, NormArgs args) {
  args.x = mirror.map(args.x);
  args.y = mirror.map(args.y);
  args.weight = mirror.map(args.weight);
  args.bias = mirror.map(args.bias);
  return args;
}

void add_ranges(Mirror& mirror, const RopeArgs& args) {
  add_heads(mirror, args.x, args.rows, args.heads, kFloat, args.rotary_dim * kFloat);
}
RopeArgs mapped(Mirror& mirror, RopeArgs args) {
  args.x.data = mirror.map(args.x.data);
  return args;
}

void add_ranges(Mirror& mirror, const HadamardArgs& args) {
  mirror.add(args.x, args.rows * args.cols * kFloat);
}
HadamardArgs mapped(Mirror& mirror, HadamardArgs args) {
  args.x = mirror.map(args.x);
  return args;
}

void add_ranges(Mirror& mirror, const KvWriteArgs& args) {
  const std::int64_t row = kv_row_bytes(args.type, args.head_dim);
  std::int64_t rows = 0;
  for (const KvWriteSequence& s : args.sequences) {
    rows = std::max(rows, s.begin + s.rows);
    add_heads(mirror, s.k, s.rows, args.heads, 1, row);
    add_heads(mirror, s.v, s.rows, args.heads, 1, row);
  }
  add_heads(mirror, args.k, rows, args.heads, kFloat, args.head_dim * kFloat);
  add_heads(mirror, args.v, rows, args.heads, kFloat, args.head_dim * kFloat);
  if (args.rope != nullptr) add_ranges(mirror, *args.rope);
}

// All blocks of a view as one range, so that they keep their distances.
void add_blocks(Mirror& mirror, const HeadView<const void>& view, const AttentionSequence& s,
                std::int64_t heads, std::int64_t row) {
  const auto [first, last] = std::ranges::minmax(s.blocks);
  const std::int64_t block = (s.block_rows - 1) * view.row_stride + (heads - 1) * view.head_stride;
  mirror.add(static_cast<const std::byte*>(view.data) + first, last - first + block + row);
}

void add_ranges(Mirror& mirror, const AttentionArgs& args) {
  const std::int64_t row = kv_row_bytes(args.kv_type, args.head_dim);
  std::int64_t rows = 0;
  for (const AttentionSequence& s : args.sequences) {
    rows = std::max(rows, s.q_begin + s.q_rows);
    for (const HeadView<const void>& view : {s.k, s.v}) {
      if (s.blocks.empty()) {
        add_heads(mirror, view, s.kv_rows, args.kv_heads, 1, row);
      } else {
        add_blocks(mirror, view, s, args.kv_heads, row);
      }
    }
  }
  add_heads(mirror, args.q, rows, args.heads, kFloat, args.head_dim * kFloat);
  mirror.add(args.out, matrix_bytes(rows, args.heads * args.head_dim, args.out_stride));
}

// `sequences`: of the result.
AttentionArgs mapped(Mirror& mirror, AttentionArgs args,
                     std::vector<AttentionSequence>& sequences) {
  sequences.assign(args.sequences.begin(), args.sequences.end());
  for (AttentionSequence& s : sequences) {
    s.k = mirror.map(s.k);
    s.v = mirror.map(s.v);
  }
  args.sequences = sequences;
  args.q.data = mirror.map(args.q.data);
  args.out = mirror.map(args.out);
  return args;
}

void add_ranges(Mirror& mirror, const ActivationArgs& args) {
  mirror.add(args.x, matrix_bytes(args.rows, args.cols, args.x_stride));
  mirror.add(args.multiplier, matrix_bytes(args.rows, args.cols, args.multiplier_stride));
  mirror.add(args.y, matrix_bytes(args.rows, args.cols, args.y_stride));
}
ActivationArgs mapped(Mirror& mirror, ActivationArgs args) {
  args.x = mirror.map(args.x);
  args.multiplier = mirror.map(args.multiplier);
  args.y = mirror.map(args.y);
  return args;
}

void add_ranges(Mirror& mirror, const AddArgs& args) {
  mirror.add(args.x, args.count * kFloat);
  mirror.add(args.y, args.count * kFloat);
}
AddArgs mapped(Mirror& mirror, AddArgs args) {
  args.x = mirror.map(args.x);
  args.y = mirror.map(args.y);
  return args;
}

void add_ranges(Mirror& mirror, const MoeRouteArgs& args) {
  mirror.add(args.logits, args.rows * args.experts * kFloat);
}
MoeRouteArgs mapped(Mirror& mirror, MoeRouteArgs args) {
  args.logits = mirror.map(args.logits);
  return args;
}

std::int64_t rows_reached(std::span<const std::int32_t> index) {
  std::int64_t rows = 0;
  for (const std::int32_t i : index) rows = std::max(rows, std::int64_t{i} + 1);
  return rows;
}

void add_ranges(Mirror& mirror, const GatherRowsArgs& args) {
  mirror.add(args.x, rows_reached(args.index) * args.cols * kFloat);
  mirror.add(args.out, static_cast<std::int64_t>(args.index.size()) * args.cols * kFloat);
}
GatherRowsArgs mapped(Mirror& mirror, GatherRowsArgs args) {
  args.x = mirror.map(args.x);
  args.out = mirror.map(args.out);
  return args;
}

// What chooses a column of every row.
template <class Args>
concept RowChoice = std::same_as<Args, ArgmaxArgs> || std::same_as<Args, SampleArgs>;
template <RowChoice Args>
void add_ranges(Mirror& mirror, const Args& args) {
  mirror.add(args.x, args.rows * args.cols * kFloat);
  mirror.add(args.chosen, args.rows * static_cast<std::int64_t>(sizeof(std::int32_t)));
}
template <RowChoice Args>
Args mapped(Mirror& mirror, Args args) {
  args.x = mirror.map(args.x);
  args.chosen = mirror.map(args.chosen);
  return args;
}

void add_ranges(Mirror& mirror, const TransposeArgs& args) {
  mirror.add(args.x, args.rows * args.cols * kFloat);
  mirror.add(args.y, args.rows * args.cols * kFloat);
}
TransposeArgs mapped(Mirror& mirror, TransposeArgs args) {
  args.x = mirror.map(args.x);
  args.y = mirror.map(args.y);
  return args;
}

void add_ranges(Mirror& mirror, const ColumnSumsArgs& args) {
  mirror.add(args.x, args.rows * args.cols * kFloat);
  mirror.add(args.max_abs, args.cols * kFloat);
  mirror.add(args.sum_squares, args.cols * kDouble);
  mirror.add(args.sum_abs, args.cols * kDouble);
}
ColumnSumsArgs mapped(Mirror& mirror, ColumnSumsArgs args) {
  args.x = mirror.map(args.x);
  args.max_abs = mirror.map(args.max_abs);
  args.sum_squares = mirror.map(args.sum_squares);
  args.sum_abs = mirror.map(args.sum_abs);
  return args;
}

void add_ranges(Mirror& mirror, const ScaleArgs& args) {
  mirror.add(args.x, args.rows * args.cols * kFloat);
  mirror.add(args.factors, args.cols * kFloat);
  mirror.add(args.divisors, args.rows * kFloat);
  mirror.add(args.y, args.rows * args.cols * kFloat);
}
ScaleArgs mapped(Mirror& mirror, ScaleArgs args) {
  args.x = mirror.map(args.x);
  args.factors = mirror.map(args.factors);
  args.divisors = mirror.map(args.divisors);
  args.y = mirror.map(args.y);
  return args;
}

void add_ranges(Mirror& mirror, const SubtractProductArgs& args) {
  mirror.add(args.a, matrix_bytes(args.m, args.k, args.a_stride));
  mirror.add(args.b, matrix_bytes(args.k, args.n, args.b_stride));
  mirror.add(args.c, matrix_bytes(args.m, args.n, args.c_stride));
}
SubtractProductArgs mapped(Mirror& mirror, SubtractProductArgs args) {
  args.a = mirror.map(args.a);
  args.b = mirror.map(args.b);
  args.c = mirror.map(args.c);
  return args;
}

void add_ranges(Mirror& mirror, const InverseFactorArgs& args) {
  mirror.add(args.h, args.n * args.n * kDouble);
  mirror.add(args.upper, args.n * args.n * kFloat);
}
InverseFactorArgs mapped(Mirror& mirror, InverseFactorArgs args) {
  args.h = mirror.map(args.h);
  args.upper = mirror.map(args.upper);
  return args;
}

void add_ranges(Mirror& mirror, const ScatterAddRowsArgs& args) {
  mirror.add(args.x, static_cast<std::int64_t>(args.index.size()) * args.cols * kFloat);
  mirror.add(args.y, rows_reached(args.index) * args.cols * kFloat);
}
ScatterAddRowsArgs mapped(Mirror& mirror, ScatterAddRowsArgs args) {
  args.x = mirror.map(args.x);
  args.y = mirror.map(args.y);
  return args;
}

void add_ranges(Mirror& mirror, const EncodeArgs& args) {
  mirror.add(args.w, args.out->rows * args.out->cols * kFloat);
}
EncodeArgs mapped(Mirror& mirror, EncodeArgs args) {
  args.w = mirror.map(args.w);
  return args;
}

void add_ranges(Mirror& mirror, const DecodeArgs& args) {
  mirror.add(args.out, args.rows * args.weight->cols * kFloat);
}
DecodeArgs mapped(Mirror& mirror, DecodeArgs args) {
  args.out = mirror.map(args.out);
  return args;
}

class MirrorBackend final : public Backend {
 public:
  explicit MirrorBackend(std::unique_ptr<Backend> device)
      : Backend(0), device_(std::move(device)) {}

  const DeviceCaps& caps() const override { return device_->caps(); }
  ThreadPool& pool() override { return device_->pool(); }
  DeviceMemory& memory() override { return host_memory(); }

#define NIBBLE_OP(name, Args)           \
  void run(const Args& args) override { \
    Mirror mirror(device_->memory());   \
    add_ranges(mirror, args);           \
    mirror.upload();                    \
    run_mapped(mirror, args);           \
    mirror.download();                  \
  }
#include "ops/ops.def"
#undef NIBBLE_OP

  void run_together(std::span<const LinearArgs> calls) override {
    Mirror mirror(device_->memory());
    for (const LinearArgs& call : calls) add_ranges(mirror, call);
    mirror.upload();
    std::vector<LinearArgs> on_device;
    for (const LinearArgs& call : calls) on_device.push_back(mapped(mirror, call));
    device_->run_together(on_device);
    mirror.download();
  }

  void run_chain(std::span<const ChainLink> links) override {
    Mirror mirror(device_->memory());
    for (const ChainLink& link : links) {
      std::visit([&](const auto& args) { add_link(mirror, args); }, link);
    }
    mirror.upload();
    std::deque<std::vector<LinearArgs>> calls;
    std::deque<std::vector<AttentionSequence>> sequences;
    std::vector<ChainLink> on_device;
    for (const ChainLink& link : links) {
      if (const auto* const some = std::get_if<std::span<const LinearArgs>>(&link)) {
        calls.emplace_back();
        for (const LinearArgs& call : *some) calls.back().push_back(mapped(mirror, call));
        on_device.emplace_back(std::span<const LinearArgs>(calls.back()));
      } else if (const auto* const norm = std::get_if<NormArgs>(&link)) {
        on_device.emplace_back(mapped(mirror, *norm));
      } else if (const auto* const attention = std::get_if<AttentionArgs>(&link)) {
        on_device.emplace_back(mapped(mirror, *attention, sequences.emplace_back()));
      } else {
        on_device.emplace_back(mapped(mirror, std::get<ActivationArgs>(link)));
      }
    }
    device_->run_chain(on_device);
    mirror.download();
  }

  using Backend::prepare;
  LinearWeight prepare(QuantTensor weight, const std::string& name,
                       const ActivationFormat* activations) override {
    return device_->prepare(std::move(weight), name, activations);
  }
  void use_packed_store(std::shared_ptr<PackedStore> store) override {
    device_->use_packed_store(std::move(store));
  }
  std::vector<ImplRow> impl_rows() const override { return device_->impl_rows(); }
  Arithmetic arithmetic_of(const LinearArgs& args) const override {
    return device_->arithmetic_of(args);
  }

 private:
  template <class Args>
  void run_mapped(Mirror& mirror, const Args& args) {
    device_->run(mapped(mirror, args));
  }
  void run_mapped(Mirror& mirror, const EmbedArgs& args) {
    EmbedArgs on_device = mapped(mirror, args);
    const QuantTensor table = device_->prepare_table(*args.table);
    on_device.table = &table;
    device_->run(on_device);
  }
  void run_mapped(Mirror& mirror, const EncodeArgs& args) {
    EncodeArgs on_device = mapped(mirror, args);
    DeviceMemory& memory = device_->memory();
    QuantTensor out = *args.out;
    for (Tensor& plane : out.planes) plane = memory.upload(plane);
    on_device.out = &out;
    device_->run(on_device);
    for (std::size_t i = 0; i < out.planes.size(); ++i) {
      args.out->planes[i] = memory.download(out.planes[i]);
    }
  }
  void run_mapped(Mirror& mirror, const DecodeArgs& args) {
    DecodeArgs on_device = mapped(mirror, args);
    const QuantTensor weight = device_->prepare_table(*args.weight);
    on_device.weight = &weight;
    device_->run(on_device);
  }
  void run_mapped(Mirror& mirror, KvWriteArgs args) {
    std::vector<KvWriteSequence> sequences(args.sequences.begin(), args.sequences.end());
    for (KvWriteSequence& s : sequences) {
      s.k = mirror.map(s.k);
      s.v = mirror.map(s.v);
    }
    args.sequences = sequences;
    args.k.data = mirror.map(args.k.data);
    args.v.data = mirror.map(args.v.data);
    RopeArgs rope;
    if (args.rope != nullptr) {
      rope = mapped(mirror, *args.rope);
      args.rope = &rope;
    }
    device_->run(args);
  }
  void run_mapped(Mirror& mirror, const AttentionArgs& args) {
    std::vector<AttentionSequence> sequences;
    device_->run(mapped(mirror, args, sequences));
  }

  template <class Args>
  static void add_link(Mirror& mirror, const Args& args) {
    add_ranges(mirror, args);
  }
  static void add_link(Mirror& mirror, const std::span<const LinearArgs>& calls) {
    for (const LinearArgs& call : calls) add_ranges(mirror, call);
  }

  std::unique_ptr<Backend> device_;
};

}  // namespace

std::unique_ptr<Backend> mirror_backend(std::unique_ptr<Backend> device) {
  return std::make_unique<MirrorBackend>(std::move(device));
}

}  // namespace nibble::test
