// Small checkpoints cut from the bundled model, and directories compared.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "base/file.h"
#include "checkpoint/writer.h"
#include "quantize/quantize.h"
#include "support/test_data.h"

namespace nibble::test {

// Copies the first `layers` layers of the bundled model to `target`; `change` may alter a tensor's
// values (float32) before they are stored in the type they had.
inline void write_small_model(
    const std::filesystem::path& target, std::int64_t layers,
    const std::function<void(const std::string& name, std::span<float> values)>& change = {}) {
  const auto source = open_checkpoint(tiny_novel());
  std::vector<StoredTensor> plan;
  for (const std::string& name : source->names()) {
    const std::string prefix = "model.layers.";
    if (name.starts_with(prefix) && std::stoll(name.substr(prefix.size())) >= layers) continue;
    const Tensor tensor = source->tensor(name);
    plan.push_back({name, tensor.dtype(), tensor.shape()});
  }
  std::filesystem::create_directory(target);
  ShardedWriter writer(target, plan);
  for (const StoredTensor& stored : plan) {
    Tensor values = to_float(source->tensor(stored.name));
    if (change) {
      change(stored.name,
             {values.mutable_data<float>(), static_cast<std::size_t>(values.elements())});
    }
    writer.write(stored.name, from_float(values.data<float>(), stored.dtype, stored.shape));
  }
  writer.finish();
  copy_companions(*source, target);
  Json config = source->config();
  config["num_hidden_layers"] = layers;
  write_config(target, config, nullptr);
}

// Every file below a folder, by relative name.
inline std::map<std::string, std::string> read_directory(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    files[std::filesystem::relative(entry.path(), folder).string()] = read_text_file(entry.path());
  }
  return files;
}

inline void expect_same_directories(const std::filesystem::path& a,
                                    const std::filesystem::path& b) {
  const auto files_a = read_directory(a);
  const auto files_b = read_directory(b);
  ASSERT_EQ(files_a.size(), files_b.size());
  for (const auto& [name, content] : files_a) {
    const auto found = files_b.find(name);
    ASSERT_NE(found, files_b.end()) << name;
    EXPECT_TRUE(found->second == content) << name << " differs";
  }
}

// A run small enough for tests: a few tokens, no verification.
inline QuantizeOptions small_options(const std::filesystem::path& source,
                                     const std::filesystem::path& output,
                                     const std::string& recipe) {
  QuantizeOptions options;
  options.source = source;
  options.output = output;
  options.recipe = recipe.starts_with("{") ? parse_recipe(recipe, "test") : load_recipe(recipe);
  options.calibration = {256, 128, 64};
  options.verify.enabled = false;
  options.save_seconds = 0;
  return options;
}

// Few candidates, both kinds of sweep.
inline constexpr const char* kSmallSearch = R"({"steps": [
    {"algorithm": "smoothquant_plus", "step": 0.5, "per_site": true, "max_rounds": 1},
    {"algorithm": "clip_search", "steps": 3}]})";

}  // namespace nibble::test
