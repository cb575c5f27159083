// A plain Hugging Face directory: config.json and 16- or 32-bit weights.
#include <algorithm>
#include <string_view>

#include "checkpoint/hf_directory.h"

namespace nibble {
namespace {

// What other tools write and nibble does not read.
struct ForeignMethod {
  std::string_view method;       // quant_method
  std::string_view name;         // as people call it
  std::string_view what;         // what it is
  std::string_view tensor = "";  // how the names of its tensors end, for files without quant_method
};
constexpr ForeignMethod kForeign[] = {
    {"aqlm", "AQLM", "additive codebooks", ".codebooks"},
    {"vptq", "VPTQ", "vector quantization", ".centroids.weight"},
    {"quip", "QuIP#", "lattice codebooks", ".Qidxs"},
    {"quip_sharp", "QuIP#", "lattice codebooks"},
    {"qtip", "QTIP", "trellis codes", ".trellis_packed"},
    {"hqq", "HQQ", "real-valued zero points", ".W_q"},
    {"bitblas", "BitBLAS", "GPTQ weights in BitBLAS's own order"},
    {"paroquant", "ParoQuant", "pairwise rotations before integers", ".theta"},
    {"eetq", "EETQ", "8-bit weights in the order of one kernel"},
    {"spqr", "SpQR", "sparse outliers beside integers", ".row_offsets"},
    {"squeezellm", "SqueezeLLM", "codebooks of rows", ".lookup_table"},
    {"higgs", "HIGGS", "Hadamard transforms and lattice codebooks"},
    {"qqq", "QQQ", "4-bit weights for 8-bit activations", ".s_group"},
    {"bitnet", "BitNet", "ternary weights in their own order"},
    {"fp_quant", "FP-Quant", "Hadamard transforms before 4-bit floats"},
    {"sinq", "SINQ", "two scales a weight"},
    {"auto-round", "AutoRound", "several layouts; export it as auto_gptq"},
    {"quark", "AMD Quark", "its own layout"},
    {"quanto", "Quanto", "its own layout", ".weight._data"},
    {"torchao", "torchao", "pickled tensor classes"},
    {"inc", "Intel Neural Compressor", "its own layout"},
};

[[noreturn]] void refuse(const std::filesystem::path& path, std::string_view name,
                         std::string_view what) {
  fail(ErrorKind::kUnsupported,
       "{}: quantized by {} ({}), which is not read; take the 16-bit checkpoint it was made from, "
       "and quantize that",
       path.string(), name, what);
}

void refuse_method(const std::filesystem::path& path, const std::string& method) {
  const auto known = std::ranges::find(kForeign, method, &ForeignMethod::method);
  if (known != std::end(kForeign)) refuse(path, known->name, known->what);
  refuse(path, "'" + method + "'", "unknown");
}

// Old files of some tools say nothing in their config; the names of their tensors do.
void refuse_foreign_tensors(const HfDirectory& directory) {
  for (const std::string& name : directory.files.names()) {
    for (const ForeignMethod& foreign : kForeign) {
      if (foreign.tensor.empty() || !name.ends_with(foreign.tensor)) continue;
      refuse(directory.path, foreign.name, foreign.what);
    }
  }
}

}  // namespace

bool probe_hf(const std::filesystem::path& path) { return std::filesystem::is_directory(path); }

std::unique_ptr<Checkpoint> open_hf(const std::filesystem::path& path) {
  const std::string method = quant_method_of(path);
  if (!method.empty()) refuse_method(path, method);
  auto directory = open_hf_directory(path);
  refuse_foreign_tensors(*directory);
  return make_hf_checkpoint("hf", std::move(directory), nullptr);
}

}  // namespace nibble
