#include "backends/backend.h"

#include "backends/cpu/block_panel_weight.h"
#include "backends/cpu/cpu_features.h"
#include "backends/cpu/impls.h"
#include "backends/cpu/levels.h"
#include "backends/cpu/panel_weight.h"
#include "backends/cpu/table_panel_weight.h"
#include "backends/dispatch.h"
#include "formats/block_forms.h"

namespace nibble {
namespace {

DeviceCaps choose_level(const std::string& isa) {
  const DeviceCaps machine = cpu::detect_caps();
  if (isa.empty()) return machine;
  std::string names;
  for (const CpuIsa level : cpu::kIsas) {
    if (isa == to_string(level)) {
      if (level <= machine.isa) return cpu::lowered(machine, level);
      fail(ErrorKind::kUnsupported, "NIBBLE_ISA: this machine has no {}; its best is {}", isa,
           to_string(machine.isa));
    }
    names += (names.empty() ? "" : ", ") + std::string(to_string(level));
  }
  fail(ErrorKind::kUsage, "NIBBLE_ISA: '{}' is unknown on this processor; use one of {}", isa,
       names);
}

DeviceCaps choose_caps(const BackendOptions& options) {
  DeviceCaps caps = choose_level(options.isa);
  caps.exact_activations = options.exact;
  return caps;
}

constexpr std::size_t kMaxFreeBufferBytes = std::size_t{256} << 20;

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options)
      : Backend(kMaxFreeBufferBytes),
        caps_(choose_caps(options)),
        pool_(options.threads),
        context_{pool_, caps_} {
    if (options.verbose_dispatch) verbose_ = options.log;
    ops_.force(options.force);
  }

  const DeviceCaps& caps() const override { return caps_; }
  ThreadPool& pool() override { return pool_; }
  Codec codec() override { return {&cpu::spans_of(caps_), &pool_}; }
  DeviceMemory& memory() override { return host_memory(); }

#define NIBBLE_OP(name, Args) \
  void run(const Args& args) override { ops_.name.run(args, context_, verbose_); }
#include "ops/ops.def"
#undef NIBBLE_OP

  void run_together(std::span<const LinearArgs> calls) override {
    ops_.linear.run_together(calls, context_, verbose_);
  }

  using Backend::prepare;
  LinearWeight prepare(QuantTensor weight, const std::string& name,
                       const ActivationFormat* /*activations*/) override {
    std::shared_ptr<const PackedWeight> panels = pack(weight, {store_.get(), name});
    return {std::move(weight), std::move(panels)};
  }

  void use_packed_store(std::shared_ptr<PackedStore> store) override { store_ = std::move(store); }

  Arithmetic arithmetic_of(const LinearArgs& args) const override {
    return ops_.linear.arithmetic_of(args, caps_);
  }

  std::vector<ImplRow> impl_rows() const override { return ops_.impl_rows(caps_); }

 private:
  // What the kernels of this machine read in place of the planes; null for nothing.
  std::shared_ptr<const PackedWeight> pack(const QuantTensor& weight, const PackedSlot& slot) {
    const bool bytes = (caps_.avx512_vnni || caps_.isa == CpuIsa::kAvx2 || caps_.neon_dotprod) &&
                       !caps_.exact_activations;
    const bool tables = caps_.isa != CpuIsa::kGeneric;
    // Blocks that are integers or tables under scales run as those.
    const FormatPtr form = plain_format_of_blocks(*weight.format);
    const bool as_plain = form != nullptr && (form->is_affine() ? bytes : tables);
    const std::optional<QuantTensor> plain =
        as_plain ? plain_form_of_blocks(weight, 1, codec()) : std::nullopt;
    const QuantTensor& stored = plain ? *plain : weight;
    std::shared_ptr<const PackedWeight> panels;
    if (bytes) {
      panels = cpu::PanelWeight::pack(stored, pool_, slot);
      if (panels == nullptr) panels = cpu::BlockPanelWeight::pack(weight, caps_, pool_, slot);
    }
    if (panels == nullptr && tables) {
      const bool wide = caps_.isa == CpuIsa::kAvx512 || caps_.isa == CpuIsa::kAmx;
      panels = cpu::TablePanelWeight::pack(stored, wide ? 8 : 4, pool_, slot);
    }
    return panels;
  }

  DeviceCaps caps_;
  ThreadPool pool_;
  ExecContext context_;
  LogSink verbose_;
  std::shared_ptr<PackedStore> store_;
  OpTable ops_ = {
#define NIBBLE_OP(name, Args) .name = OpDispatcher<Args>(#name, cpu::name##_impls()),
#include "ops/ops.def"
#undef NIBBLE_OP
  };
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace nibble
