#!/usr/bin/env python3
"""Checks that includes only point down the layers of ARCHITECTURE.md.

A file of src/<folder> may include its own folder and folders of a lower rank; folders of equal rank do
not see each other, and neither do backends. CMake's target dependencies follow the same table.
"""
import pathlib
import re
import sys

RANK = {
    "base": 0,
    "hub": 1,
    "tensor": 1,
    "formats": 2,
    "ops": 3,
    "backends": 4,
    "model": 5,
    "checkpoint": 5,
    "runtime": 6,
    "eval": 7,
    "server": 7,
    "quantize": 8,
    "study": 9,
    "cli": 10,
}
SIBLINGS = ("backends/cpu", "backends/cuda")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def violations(path: pathlib.Path, source: pathlib.Path) -> list[str]:
    relative = path.relative_to(source).as_posix()
    folder = relative.split("/")[0]
    if folder not in RANK:
        return [f"{relative}: folder {folder} has no rank in tools/check_layers.py"]
    found = []
    for target in INCLUDE.findall(path.read_text(encoding="utf-8")):
        top = target.split("/")[0]
        if top not in RANK:
            found.append(f'{relative}: "{target}" does not start with a folder of src/')
        elif top != folder and RANK[top] >= RANK[folder]:
            found.append(f'{relative}: includes "{target}", which is not below {folder}')
        for one in SIBLINGS:
            for other in SIBLINGS:
                if one != other and relative.startswith(one) and target.startswith(other):
                    found.append(f'{relative}: includes its sibling "{target}"')
    return found


def main() -> int:
    source = pathlib.Path(__file__).resolve().parent.parent / "src"
    files = [p for p in source.rglob("*") if p.suffix in {".h", ".cc", ".cu", ".cuh", ".def"}]
    found = [v for path in sorted(files) for v in violations(path, source)]
    for line in found:
        print(f"layers: {line}")
    if not found:
        print(f"layers: ok ({len(files)} files)")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
