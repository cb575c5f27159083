#!/usr/bin/env python3
"""Hygiene of what git tracks: file sizes, model weights, left-over code, registry lines.

Fails on files over 1 MB outside models/tiny-novel, on weight files elsewhere than there and in tests/golden, on
`#if 0`, on unfinished-work markers, and on members of a registry's folder without a line in its registry.def.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX_BYTES = 1_000_000
WEIGHTS = {".safetensors", ".gguf", ".pt", ".pth"}
WEIGHT_HOMES = ("models/tiny-novel/", "tests/golden/", "tests/fuzz/corpus/")
MARKER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|^\s*#\s*if\s+0\b", re.MULTILINE)
CODE = {".h", ".cc", ".cu", ".cuh", ".py", ".sh", ".cmake"}

# folder whose .cc files are members of a registry -> the registry
REGISTRIES = {
    "src/model/archs": "src/model/registry.def",
    "src/quantize/algorithms": "src/quantize/registry.def",
    "src/checkpoint/conventions": "src/checkpoint/registry.def",
}


def tracked() -> list[str]:
    output = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in output.stdout.split("\0") if name and (ROOT / name).is_file()]


def check_file(name: str) -> list[str]:
    path = ROOT / name
    found = []
    if path.stat().st_size > MAX_BYTES and not name.startswith("models/tiny-novel/"):
        found.append(f"{name}: {path.stat().st_size} bytes, more than {MAX_BYTES}")
    if path.suffix in WEIGHTS and not name.startswith(WEIGHT_HOMES):
        found.append(f"{name}: model weights do not belong here")
    if path.suffix in CODE:
        for match in MARKER.finditer(path.read_text(encoding="utf-8")):
            found.append(f"{name}: leftover '{match.group(0).strip()}'")
    return found


def check_registries() -> list[str]:
    found = []
    for folder, registry in REGISTRIES.items():
        text = (ROOT / registry).read_text(encoding="utf-8")
        for source in sorted((ROOT / folder).glob("*.cc")):
            if not re.search(rf"\b{re.escape(source.stem)}\b", text):
                found.append(f"{folder}/{source.name} has no line in {registry}")
    return found


def main() -> int:
    names = tracked()
    found = [line for name in names for line in check_file(name)] + check_registries()
    for line in found:
        print(f"tree: {line}")
    if not found:
        print(f"tree: ok ({len(names)} files)")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
