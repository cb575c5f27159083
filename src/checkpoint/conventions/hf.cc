// A plain Hugging Face directory: config.json and 16- or 32-bit weights.
#include <algorithm>
#include <string_view>
#include <utility>

#include "checkpoint/hf_directory.h"

namespace nibble {
namespace {

// Methods that other tools write and nibble does not read, with what they are.
constexpr std::pair<std::string_view, std::string_view> kKnownMethods[] = {
    {"aqlm", "additive codebooks"},
    {"vptq", "vector quantization"},
    {"quip", "lattice codebooks"},
    {"hqq", "real-valued zero points"},
    {"bitblas", "GPTQ weights in BitBLAS's own order"},
    {"paroquant", "pairwise rotations before integers"},
    {"exl2", "mixed bit rates of ExLlamaV2"},
    {"exl3", "trellis codes of ExLlamaV3"},
    {"eetq", "8-bit weights in the order of one kernel"},
    {"spqr", "sparse outliers beside integers"},
    {"higgs", "Hadamard transforms and lattice codebooks"},
    {"auto-round", "several layouts of AutoRound; export it as auto_gptq"},
    {"quark", "AMD Quark's own layout"},
    {"torchao", "pickled tensor classes"},
};

}  // namespace

bool probe_hf(const std::filesystem::path& path) { return std::filesystem::is_directory(path); }

std::unique_ptr<Checkpoint> open_hf(const std::filesystem::path& path) {
  const std::string method = quant_method_of(path);
  if (!method.empty()) {
    const auto known =
        std::ranges::find(kKnownMethods, method, [](const auto& row) { return row.first; });
    const std::string_view what = known == std::end(kKnownMethods) ? "unknown" : known->second;
    fail(ErrorKind::kUnsupported,
         "{}: quantization method '{}' ({}) is not read; take the 16-bit checkpoint it was made "
         "from, and quantize that",
         path.string(), method, what);
  }
  return make_hf_checkpoint("hf", open_hf_directory(path), nullptr);
}

}  // namespace nibble
