#!/usr/bin/env python3
"""Checks that no two types of src/ share a name in one namespace.

Two different definitions of nibble::X in two files break the one-definition rule: templates made of
them (std::vector<X>) are merged by the linker, and one of the two then reads memory with the other's
size. No compiler warns. Types in anonymous namespaces are free; kernels/ is included inside them.
"""
import collections
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMESPACE = re.compile(r"namespace ([\w:]+) \{")
DEFINITION = re.compile(r"(?:struct|class|enum class|union) (\w+)(?: final)?(?: : [^;]*)? ?\{")


def types_of(path):
    """(namespace, name) of every type defined at the top level of a file, outside anonymous namespaces."""
    namespace, anonymous = "", False
    for line in path.read_text().splitlines():
        if line.startswith("namespace {"):
            anonymous = True
        elif line.strip() == "}  // namespace":
            anonymous = False
        elif match := NAMESPACE.match(line):
            namespace = match.group(1)
        elif (match := DEFINITION.match(line)) and not anonymous:
            yield namespace, match.group(1)


def main():
    places = collections.defaultdict(set)
    for path in sorted((ROOT / "src").rglob("*.*")):
        if path.suffix not in (".h", ".cc", ".cu", ".cuh") or path.name.endswith(".inl.h"):
            continue
        for key in types_of(path):
            places[key].add(path.relative_to(ROOT).as_posix())
    twice = {key: files for key, files in places.items() if len(files) > 1}
    for (namespace, name), files in twice.items():
        print(f"types: {namespace}::{name} is defined in {' and in '.join(sorted(files))}")
    if not twice:
        print(f"types: ok ({len(places)} types)")
    return 1 if twice else 0


if __name__ == "__main__":
    sys.exit(main())
