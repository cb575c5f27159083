// Conventions over Hugging Face directories: whatever tensors stand in the file under whatever
// quant_method, every module is read or refused. The first byte chooses the method, the rest is a
// safetensors file.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/source_modules.h"

namespace {

constexpr const char* kConfigs[] = {
    R"("quant_method": "gptq", "bits": 4, "group_size": 32)",
    R"("quant_method": "gptq", "checkpoint_format": "gptq_v2", "bits": 3, "group_size": -1)",
    R"("quant_method": "marlin", "group_size": 128)",
    R"("quant_method": "awq", "version": "gemm", "group_size": 32)",
    R"("quant_method": "awq", "version": "gemv", "group_size": 64)",
    R"("quant_method": "awq", "version": "gemv_fast", "group_size": 64)",
    R"("quant_method": "exl3")",
    R"("quant_method": "exl2")",
    R"("quant_method": "fp8", "weight_block_size": [16, 32])",
    R"("quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN")",
    R"("quant_method": "bitsandbytes")",
    R"("quant_method": "nibble", "version": 1, "formats": [{"element": {"kind": "mixed_int",
       "runs": [{"bits": 6, "group": 32, "groups": 1}, {"bits": 4, "group": 32}]}}],
       "modules": {"m": {"format": 0, "shape": [4, 64]}})",
};

// A directory of this process.
const std::filesystem::path& directory() {
  static const std::filesystem::path path = [] {
    std::string name = (std::filesystem::temp_directory_path() / "fuzz_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    std::atexit([] { std::filesystem::remove_all(directory()); });
    return std::filesystem::path(name);
  }();
  return path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nibble;
  if (size == 0) return 0;
  std::ofstream(directory() / "config.json") << R"({"vocab_size": 40, "quantization_config": {)"
                                             << kConfigs[data[0] % std::size(kConfigs)] << "}}";
  std::ofstream(directory() / "model.safetensors", std::ios::binary)
      .write(reinterpret_cast<const char*>(data) + 1, static_cast<std::streamsize>(size - 1));
  const auto expect_no_bug = [](const auto& body) {
    try {
      body();
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInternal) std::abort();
    }
  };
  expect_no_bug([&] {
    const auto checkpoint = open_checkpoint(directory());
    expect_no_bug([&] { checkpoint->notes(); });
    for (const std::string& name : checkpoint->names()) {
      const std::string module = module_of(name);
      if (!checkpoint->has_linear(module)) continue;
      expect_no_bug([&] { checkpoint->activations(module); });
      expect_no_bug([&] {
        const QuantTensor weight = checkpoint->linear(module);
        validate(weight);
        std::vector<float> row(static_cast<std::size_t>(weight.cols));
        weight.format->decode(weight, weight.rows - 1, 0, weight.cols, row.data());
      });
    }
  });
  return 0;
}
