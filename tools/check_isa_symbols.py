#!/usr/bin/env python3
"""Checks that no instruction of a newer machine can run on an older one.

    tools/check_isa_symbols.py BUILD_DIR     check the objects of an optimised build
    tools/check_isa_symbols.py --self-test   plant leaks and expect them to be found

The units of src/backends/cpu/isa/ are compiled for their own level. If one of them instantiated a
template of the standard library, the linker might take that copy for the whole program, and an older
machine would fault. So for every object of BUILD_DIR/src:
  - isa/avx512*: anything; isa/avx2*: no EVEX (zmm, masks, registers above 15); all others: no VEX at all;
  - isa units define no weak symbol and export only <unit>_kernels().
Needs nm and objdump. Exits 1 and lists the offenders when there are any.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

EVEX = re.compile(r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]|\{1to\d+\}")
VEX = re.compile(r"^v[a-z0-9]+\s.*%[xyz]mm|^vzero(upper|all)\b|%ymm")
UNITS = ("generic", "avx2", "avx2_int8", "avx512", "avx512_vnni")


def unit_of(path):
    """The name of an isa unit's object, or None for other objects."""
    for unit in UNITS:
        if path.as_posix().endswith(f"/isa/{unit}.cc.o"):
            return unit
    return None


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def instruction_offenders(path, pattern):
    """Functions that hold a forbidden instruction, each with its first one."""
    function, found = "?", {}
    for line in run("objdump", "-d", "--no-show-raw-insn", "-C", str(path)).splitlines():
        header = re.match(r"[0-9a-f]+ <(.*)>:$", line)
        if header:
            function = header.group(1)
            continue
        parts = line.split("\t")
        if len(parts) > 1 and pattern.search(parts[1].strip()):
            found.setdefault(function, parts[1].strip())
    return [f"{path.name}: {name}: {instruction}" for name, instruction in found.items()]


def symbol_offenders(path, unit):
    """Weak definitions, and exports other than the table of the unit."""
    offenders = []
    for line in run("nm", "-C", "--defined-only", str(path)).splitlines():
        kind, name = line[17:18], line[19:]
        if kind in "WVu" and not name.startswith("DW.ref."):
            offenders.append(f"{path.name}: weak symbol {name}")
        elif kind.isupper() and kind not in "WV" and f"{unit}_kernels()" not in name:
            offenders.append(f"{path.name}: exports {name}")
    return offenders


def check_object(path):
    unit = unit_of(path)
    offenders = symbol_offenders(path, unit) if unit else []
    if unit and unit.startswith("avx512"):
        return offenders
    return offenders + instruction_offenders(path, EVEX if unit and unit.startswith("avx2") else VEX)


def check_build(build):
    objects = sorted((build / "src").rglob("*.cc.o"))
    units = {unit_of(path) for path in objects} - {None}
    if units != set(UNITS):
        return [f"{build}: the units {sorted(set(UNITS) - units)} are not built"]
    return [offender for path in objects for offender in check_object(path)]


def self_test():
    """Compiles leaking units and an innocent one."""
    sort = ("#include <algorithm>\nnamespace nibble { static void f(float* p, int n) "
            "{ std::sort(p, p + n); }\nvoid avx512_kernels(float* p, int n) { f(p, n); } }\n")
    square = "void f(float* x) { for (int i = 0; i < 1024; ++i) x[i] = x[i] * x[i]; }\n"
    cases = [
        ("isa/avx512.cc.o", sort, ["-mavx512f", "-O1"], "weak symbol"),
        ("isa/avx512.cc.o", "int leaked() { return 1; }\n", ["-mavx512f"], "exports"),
        ("isa/avx2.cc.o", "static " + square.replace("f(", "nibble_f(") +
         "namespace nibble { void avx2_kernels() { static float x[1024]; nibble_f(x); } }\n",
         ["-mavx512f", "-mprefer-vector-width=512"], "zmm"),
        ("linear.cc.o", square, ["-mavx2"], "ymm"),
        ("linear.cc.o", square, [], None),
    ]
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, source, flags, expected) in enumerate(cases):
            path = pathlib.Path(folder, str(index), name)
            path.parent.mkdir(parents=True)
            subprocess.run(["c++", "-x", "c++", "-", "-c", "-O3", "-std=c++20",
                            *flags, "-o", str(path)],
                           input=source, text=True, check=True)
            offenders = check_object(path)
            good = any(expected in o for o in offenders) if expected else not offenders
            if not good:
                failures += 1
                print(f"self-test {index} ({name} {flags}): expected {expected}, found {offenders}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", nargs="?", type=pathlib.Path)
    parser.add_argument("--self-test", action="store_true")
    args = parser.parse_args()
    if args.self_test:
        return 1 if self_test() else 0
    if args.build is None:
        parser.error("name a build directory, or --self-test")
    offenders = check_build(args.build)
    for offender in offenders:
        print(offender)
    return 1 if offenders else 0


if __name__ == "__main__":
    sys.exit(main())
