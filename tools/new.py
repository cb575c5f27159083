#!/usr/bin/env python3
"""./dev new format|algorithm|arch|checkpoint NAME: writes the file, the registry line and the test.

The files compile and the registry tests run on them at once; what they cannot know is said as an error of
kind `unsupported` until it is written.
"""
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

ALGORITHM = '''// {name}: say in one line what it does, and its source.
#include <algorithm>

#include "quantize/algorithm.h"
#include "quantize/groups.h"

namespace nibble {{
namespace {{

// Starts as round to nearest: the full range of every group.
void solve(const SolverProblem& problem, const Parameters&, std::span<AffineParams> params) {{
  for_each_group(problem, [&](std::int64_t index, const float* w, std::int64_t count, auto) {{
    const auto [lo, hi] = std::minmax_element(w, w + count);
    params[static_cast<std::size_t>(index)] = affine_params(problem.descriptor, *lo, *hi);
  }});
}}

}}  // namespace

Algorithm make_{name}() {{
  Algorithm algorithm;
  algorithm.name = "{name}";
  algorithm.summary = "say what it does";
  algorithm.kind = StepKind::kSolver;
  algorithm.solve = solve;
  return algorithm;
}}

}}  // namespace nibble
'''

ALGORITHM_TEST = '''#include <gtest/gtest.h>

#include "quantize/algorithm.h"

namespace nibble {{
namespace {{

TEST({camel}Test, CoversTheRangeOfAGroup) {{
  const Algorithm* algorithm = find_algorithm("{name}");
  ASSERT_NE(algorithm, nullptr);
  const float w[] = {{-1, 0.5f, 2, 0}};
  WeightDescriptor descriptor;
  descriptor.element = {{ElementKind::kInt, 4, DType::kF32}};
  descriptor.scheme = {{Granularity::kGroup, 4, false, DType::kF32}};
  std::vector<AffineParams> params(1);
  algorithm->solve({{descriptor, w, 1, 4, {{}}}}, {{}}, params);
  EXPECT_NEAR(params[0].scale, 3.0f / 15, 1e-6);
  EXPECT_EQ(params[0].zero, 5);
}}

}}  // namespace
}}  // namespace nibble
'''

ARCH = '''// {name}: say what sets it apart from a Llama.
#include "model/arch_common.h"

namespace nibble {{

ModelSpec build_{name}(const Json& json) {{
  const ConfigReader config(json);
  return llama_like(config, "{name}", {{}});
}}

}}  // namespace nibble
'''

ARCH_TEST = '''#include <gtest/gtest.h>

#include "model/arch.h"

namespace nibble {{
namespace {{

TEST({camel}ArchTest, ReadsSizesFromTheConfig) {{
  const ModelSpec spec = build_spec({{{{"model_type", "{name}"}},
                                     {{"vocab_size", 96}},
                                     {{"hidden_size", 32}},
                                     {{"intermediate_size", 48}},
                                     {{"num_hidden_layers", 2}},
                                     {{"num_attention_heads", 4}},
                                     {{"num_key_value_heads", 2}},
                                     {{"max_position_embeddings", 128}},
                                     {{"rms_norm_eps", 1e-6}}}});
  EXPECT_EQ(spec.arch, "{name}");
  EXPECT_EQ(spec.hidden, 32);
  EXPECT_EQ(spec.attention.kv_heads, 2);
}}

}}  // namespace
}}  // namespace nibble
'''

CHECKPOINT = '''// {name}: say how its names and packing differ from a plain directory.
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "checkpoint/checkpoint.h"

namespace nibble {{

bool probe_{name}(const std::filesystem::path& path) {{
  return std::filesystem::exists(path / "{name}.json");
}}

std::unique_ptr<Checkpoint> open_{name}(const std::filesystem::path& path) {{
  fail(ErrorKind::kUnsupported, "{{}}: reading {name} checkpoints is not written yet", path.string());
}}

}}  // namespace nibble
'''

CHECKPOINT_TEST = '''#include "checkpoint/checkpoint.h"

#include <fstream>

#include "base/error.h"
#include "support/test_data.h"

namespace nibble {{
namespace {{

TEST({camel}Test, IsRecognised) {{
  const test::TempDir dir;
  std::ofstream(dir / "{name}.json") << "{{}}";
  EXPECT_ERROR(open_checkpoint(dir.path()), ErrorKind::kUnsupported, "{name}");
}}

}}  // namespace
}}  // namespace nibble
'''

FORMAT_TEST = '''#include <gtest/gtest.h>

#include "formats/registry.h"

namespace nibble {{
namespace {{

TEST({camel}FormatTest, MeansItsDefinition) {{
  EXPECT_EQ(parse_model_format("{name}").weights->name(),
            parse_model_format("{definition}").weights->name());
}}

}}  // namespace
}}  // namespace nibble
'''

# kind -> (registry, line, [(file, template)]); the line goes before the first or after the last member
KINDS = {
    "format": ("src/formats/registry.def", 'NIBBLE_FORMAT({name}, "{definition}")', "after",
               [("tests/formats/{name}_test.cc", FORMAT_TEST)]),
    "algorithm": ("src/quantize/registry.def", "NIBBLE_ALGORITHM({name})", "after",
                  [("src/quantize/algorithms/{name}.cc", ALGORITHM),
                   ("tests/quantize/{name}_test.cc", ALGORITHM_TEST)]),
    "arch": ("src/model/registry.def", 'NIBBLE_ARCH({name}, "{name}")', "after",
             [("src/model/archs/{name}.cc", ARCH), ("tests/model/{name}_test.cc", ARCH_TEST)]),
    "checkpoint": ("src/checkpoint/registry.def", 'NIBBLE_CHECKPOINT({name}, "{name}")', "before",
                   [("src/checkpoint/conventions/{name}.cc", CHECKPOINT),
                    ("tests/checkpoint/{name}_test.cc", CHECKPOINT_TEST)]),
}


def add_line(registry: pathlib.Path, line: str, where: str) -> None:
    lines = registry.read_text(encoding="utf-8").splitlines()
    members = [i for i, text in enumerate(lines) if text.startswith("NIBBLE_")]
    lines.insert(members[0] if where == "before" else members[-1] + 1, line)
    registry.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or arguments[0] not in KINDS:
        print("usage: ./dev new format NAME DEFINITION | algorithm NAME | arch NAME | checkpoint NAME",
              file=sys.stderr)
        return 2
    kind, name = arguments[:2]
    definition = arguments[2] if len(arguments) > 2 else ""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or (kind == "format") == (definition == ""):
        print("new: NAME is lower case with underscores; a format (and only that) needs a DEFINITION "
              "such as w=int4_g256_asym", file=sys.stderr)
        return 2
    registry, line, where, files = KINDS[kind]
    words = {"name": name, "definition": definition,
             "camel": "".join(part.capitalize() for part in name.split("_"))}
    paths = [ROOT / path.format(**words) for path, _ in files]
    if any(path.exists() for path in paths):
        print(f"new: {name} is there already", file=sys.stderr)
        return 2
    for path, (_, template) in zip(paths, files):
        path.write_text(template.format(**words), encoding="utf-8")
        if shutil.which("clang-format"):
            subprocess.run(["clang-format", "-i", str(path)], check=True)
        print(f"wrote {path.relative_to(ROOT)}")
    add_line(ROOT / registry, line.format(**words), where)
    print(f"added a line to {registry}; next: CONTRIBUTING.md, then ./dev test")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
